"""The page that `python -m bundle report` writes: its figures, its pictures of patients, its words and its form."""
