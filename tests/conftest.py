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
# the compiler's expensive passes, but for tests that train convolutions, which run longer than they
# compile. JDIFF_TESTS=optimized runs everything with all of them; so does .ci/run with core tests.
HASTY = os.environ.get("JDIFF_TESTS") != "optimized"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures: a test marked `optimized` is compiled as users compile."""
    hasty = HASTY and item.get_closest_marker("optimized") is None
    jax.config.update("jax_disable_most_optimizations", hasty)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)
