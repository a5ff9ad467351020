"""Settings that every test runs under."""

import os

import jax
import numpy as np
import pytest

# What tests run in processes of their own.
collect_ignore_glob = ["*_program.py"]

# Silent broadcasting between ranks and a key used twice are errors in tests.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Compiling is most of a test's time, and what is tested is mathematics: the everyday run leaves out
# the compiler's expensive passes. JDIFF_TESTS=optimized runs with all of them, as users do; .ci/run
# does so with the core tests.
if os.environ.get("JDIFF_TESTS") != "optimized":
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)
