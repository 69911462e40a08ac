"""Tables to findings: statistics, comparison, raters, calibration."""
