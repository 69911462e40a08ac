"""DICOM: studies to volumes, masks to DICOM SEG."""
