"""StyleCLIP (Patashnik, Wu et al. 2021): edits that a text asks for, three ways.

- `optimisation`: latents of an image, moved until CLIP finds the text in it; minutes an image.
- `mapper`: a small network, trained once for a text, that gives the change of any latent.
- `global_directions`: one direction in S space for a text, from what each channel does to CLIP's
  features (fs3); nothing is trained for a new text.
"""
