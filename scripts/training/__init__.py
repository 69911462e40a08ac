"""Losses, schedules, checkpoint selection, the run folder, resuming."""
