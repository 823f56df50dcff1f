"""Where arrays live: the mesh, and the sharding of state, networks and batches."""
