"""nnU-Net beside us: run by the Python of its own environment."""
