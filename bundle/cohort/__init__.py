"""A folder of scans to a data list: layouts, checks over cases, splits, fingerprint, phantoms."""
