"""The earlier name of `scripts.network.slab`, so that the settings of older runs can still be read."""

from scripts.network.slab import SlabNetwork

__all__ = ["SlabNetwork"]
