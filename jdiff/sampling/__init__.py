"""Sampling: one compiled loop for every denoiser and every solver."""

from jdiff.sampling import solvers
from jdiff.sampling.sampler import sample, sample_key, solve
from jdiff.sampling.solvers import Solver

__all__ = ["Solver", "sample", "sample_key", "solve", "solvers"]
