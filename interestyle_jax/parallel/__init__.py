"""Several devices and processes: mesh, sharding, and how processes find each other."""
