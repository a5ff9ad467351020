"""Benchmarks of jdiff: throughput beside memorization; run them with `python -m benchmarks`."""

import os

# Other processes use the device too (peers, measures of memory): jax takes what it needs, not three
# quarters of a GPU's memory at once. Read when jax starts.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
