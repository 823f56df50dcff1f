"""The interest region: masks, dilation and the uninterest filter (paper sections 3.2 and 3.4)."""
