"""One patient over time: registration, lesions, changes."""
