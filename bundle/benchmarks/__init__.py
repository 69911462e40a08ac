"""What `python -m bundle bench` measures, a module a subject."""
