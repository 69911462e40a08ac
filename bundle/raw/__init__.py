"""Raw scans: bias field, co-registration of the channels, brain mask."""
