"""How far do several people's masks agree? What the command `raters` reads, counts, draws and says."""
