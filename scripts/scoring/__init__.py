"""Masks to numbers: metrics, lesions, cases, tables. Nothing here loads torch."""
