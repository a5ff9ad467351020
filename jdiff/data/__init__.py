"""Data sets: from a name or from arrays to `ImageData`, and batches drawn on the device."""

from jdiff.data.images import ImageData, from_arrays
from jdiff.data.sources import load, read_folder

__all__ = ["ImageData", "from_arrays", "load", "read_folder"]
