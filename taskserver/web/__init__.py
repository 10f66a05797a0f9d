"""HTTP: what all rooms share, and the wiring."""
