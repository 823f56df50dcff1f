"""Editing: latents are changed, images are drawn from them.

An edit is an `edits.Edit`: `edit(latents, strength) -> latents`, pure, of `w_plus` [B, L, D] or of
the styles of S space (a tuple of [B, C], one for each of `Generator.style_layers`). A new kind of
edit is a function `(variables, latents, strength) -> latents` in an `Edit`; `edits.apply_edits`
joins any number of them, and `interestyle edit` runs them on many images.

- `style_space`: flat vectors of S, with and without the ToRGB layers.
- `directions`: linear edits and their file format; `direction_files` reads the formats of others.
- `bands`: rows of `w_plus` by resolution, and mixing of two latents (Fig. 9).
"""
