"""Inversion: the refinement loop (Fig. 4), interest disentanglement (section 3.3), `load`."""
