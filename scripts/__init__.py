"""The part of the project that travels: all that an exported package needs. `bundle/` is the workbench that stays."""
