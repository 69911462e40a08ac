"""What a release is made of: `export` writes it, `publish` and `serve` take it."""
