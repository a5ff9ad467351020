"""Settings that every test runs under."""

import jax
import numpy as np
import pytest

# What tests run in processes of their own.
collect_ignore_glob = ["*_program.py"]

# Silent broadcasting between ranks and a key used twice are errors in tests.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)
