"""Training: losses, the pure steps, and the host loop around them."""
