"""nnU-Net for comparison, run by the Python of its own environment."""
