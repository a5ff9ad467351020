"""Benchmarks of jdiff: throughput beside memorization; run them with `python -m benchmarks`."""
