"""A run to a package; checking, serving and publishing packages."""
