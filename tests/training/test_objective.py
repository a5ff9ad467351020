"""The loss of an example against float64, for every row of the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.training.objective import losses

SD = 0.6
LEVELS = np.array([0.01, 0.3, 2.0, 40.0])


def c(row, s):
    """(c_skip, c_out) of design: edm, x0, eps and v."""
    return {
        "edm": (SD**2 / (s**2 + SD**2), s * SD / np.sqrt(s**2 + SD**2)),
        "x0": (0 * s, 1 + 0 * s),
        "eps": (1 + 0 * s, -s),
        "v": (1 / (1 + s**2), -s / np.sqrt(1 + s**2)),
    }[row]


def network(x, c_noise):
    return jnp.sin(x) + c_noise[:, None, None, None]


@pytest.mark.core
@pytest.mark.parametrize("row", ["edm", "x0", "eps", "v"])
def test_losses_against_float64(row, rng):
    x, z = rng.standard_normal((2, 4, 2, 3, 1))
    s = LEVELS[:, None, None, None]
    y = x + s * z
    c_skip, c_out = c(row, s)
    f = np.sin(y / np.sqrt(s**2 + SD**2)) + np.log(s) / 4
    error = (c_skip * y + c_out * f - x) / c_out
    wanted = np.mean(error**2, axis=(1, 2, 3))
    jitted = jax.jit(losses, static_argnums=(0, 1))
    arguments = [jnp.asarray(v, jnp.float32) for v in (SD, x, LEVELS, z)]
    found = jitted(network, row, *arguments)
    assert found.shape == (4,)
    # At sigma = 0.01 eps loses two digits in D - x, divided by sigma again.
    np.testing.assert_allclose(found, wanted, rtol=1e-3 if row == "eps" else 2e-5)


def test_a_network_that_says_the_target_has_no_loss(rng):
    """eps: F = z gives D = y - sigma z = x."""
    x, z = (jnp.asarray(v, jnp.float32) for v in rng.standard_normal((2, 4, 2, 3, 1)))
    found = losses(lambda *_: z, "eps", jnp.float32(SD), x, jnp.asarray(LEVELS, jnp.float32), z)
    # float32 rounding of y, about 1e-7 of 40, is divided by sigma.
    np.testing.assert_allclose(found, 0, atol=1e-9)
