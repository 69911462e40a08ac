"""DICOM studies to volumes, and masks to DICOM SEG."""
