"""The Python that the workflow configs name. It travels with an exported bundle, so it never imports `bundle`."""
