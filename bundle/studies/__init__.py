"""Studies over runs: plans, cross-validation, ablation, ensembles, post-processing."""
