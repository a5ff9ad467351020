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

# The CPU compiler's older emitters, a program in one piece, compile in under half the time. A
# version that has no such flags ends the process, so only versions that were tried are given them.
# They are read once, when jax first compiles, here and in processes that tests start: tests marked
# `optimized` have the older emitters too, JDIFF_TESTS=optimized has those that users have.
if HASTY and jax.__version_info__ < (0, 11):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures: a test marked `optimized` has all of the passes."""
    hasty = HASTY and item.get_closest_marker("optimized") is None
    jax.config.update("jax_disable_most_optimizations", hasty)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)
