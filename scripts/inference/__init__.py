"""Scans to masks: windows, post-processing, writing."""
