"""Inversion by optimisation: one loop for projectors, Image2StyleGAN, II2S and pivotal tuning.

- `recipes`: what is optimised, by which terms and how: the presets of the literature.
- `terms`: the terms of the loss, image terms with a mask each.
- `latent_statistics`: what some recipes need to know of W.
- `optimiser`: the loop.
"""
