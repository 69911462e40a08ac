"""A run to a package, and a package to others."""
