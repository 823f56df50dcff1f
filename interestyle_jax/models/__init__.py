"""Networks as pure functions in Flax Linen; no file here reads or writes anything."""
