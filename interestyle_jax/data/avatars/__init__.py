"""The avatar world: drawn heads with exact masks, busy backgrounds and obstacles, from a seed."""

from interestyle_jax.data.avatars.render import STYLES
from interestyle_jax.data.avatars.world import SPLITS, clean_sample, sample

__all__ = ["SPLITS", "STYLES", "clean_sample", "sample"]
