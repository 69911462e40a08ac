"""One short module per command: parse, call, print."""
