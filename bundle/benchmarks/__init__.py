"""What `python -m bundle bench` measures: train, infer, score, load; and what these need."""
