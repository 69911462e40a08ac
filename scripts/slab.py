"""Former name of `scripts.network.slab`, kept so that the settings of older runs can be read."""

from scripts.network.slab import SlabNetwork

__all__ = ["SlabNetwork"]
