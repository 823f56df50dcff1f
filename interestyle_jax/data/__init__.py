"""Data: the avatar world, TFDS builders and the input pipeline."""
