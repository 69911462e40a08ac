"""Networks of ours, what networks return, weights, precision."""
