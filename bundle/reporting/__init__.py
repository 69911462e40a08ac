"""Findings to words and pages."""
