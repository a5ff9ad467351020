"""jdiff's version: known without the package's metadata, which a checkout on a path has not."""

__version__ = "0.1.0"
