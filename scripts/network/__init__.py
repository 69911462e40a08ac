"""Networks, their outputs, weights and precision."""
