"""Losses, schedules, selection of weights, the run folder, resuming."""
