"""The parts of the network that are computed otherwise than in MONAI, to the same results."""
