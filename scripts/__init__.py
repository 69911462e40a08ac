"""The code that configs name, included in exported packages; the command-line tools are in `bundle/`."""
