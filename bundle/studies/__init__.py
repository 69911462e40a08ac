"""Many trainings as one study: plans, cross-validation, ablations, ensembles, and where their jobs run."""
