"""One step of the probability-flow ODE, or of its stochastic cousins, from sigma to sigma_next.

    dy/dsigma = (y - D(y, sigma)) / sigma

A solver is two functions: `init(y) -> state` and `step(denoise, y, state, sigma, sigma_next, keys)
-> (y_next, state)`; `stateless` makes one of a step without memory. `denoise(y, sigma)` is the
denoiser, `keys` [B] has one key a sample. On the last step (sigma_next = 0) every solver returns
D(y, sigma); none calls the denoiser at 0.

References: Song et al. 2021 (DDIM), eq. 12; Karras et al. 2022 (EDM), algorithm 1; Ho et al. 2020
(DDPM); Lu et al. 2022 (DPM-Solver++), algorithm 2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Solver(NamedTuple):
    """A sampler step and its memory.

    Attributes:
      init: y [B, H, W, C] -> state, any pytree.
      step: (denoise, y, state, sigma, sigma_next, keys) -> (y_next, state); sigma and sigma_next
        are scalars. It calls `denoise` at (y, sigma) first, outside any branch.
      nfe: number of steps -> number of denoiser evaluations.
      stochastic: whether it draws noise, so that `solve` must be given a key.
      affine: whether y_next is an affine combination, with scalar weights, of y and of what the
        denoiser said, and on the last step what it said. Such a solver may run in the coordinates
        of a denoiser's range (`denoisers.protocol.Coordinates`).
    """

    init: Callable[[jax.Array], Any]
    step: Callable[..., tuple[jax.Array, Any]]
    nfe: Callable[[int], int] = lambda num_steps: num_steps
    stochastic: bool = False
    affine: bool = False


def stateless(step: Callable[..., jax.Array], **fields: Any) -> Solver:
    """A Solver of a step without memory: (denoise, y, sigma, sigma_next, keys) -> y_next."""

    def with_state(
        denoise: Callable, y: jax.Array, state: Any, sigma: Any, sigma_next: Any, keys: Any
    ) -> tuple[jax.Array, Any]:
        return step(denoise, y, sigma, sigma_next, keys), state

    return Solver(lambda y: (), with_state, **fields)


def _ddim(denoise: Callable, y: jax.Array, sigma: Any, sigma_next: Any, keys: Any) -> jax.Array:
    """Euler's step in sigma: y' = D + (sigma'/sigma)(y - D)."""
    x_hat = denoise(y, sigma)
    return x_hat + (sigma_next / sigma) * (y - x_hat)


def _heun(denoise: Callable, y: jax.Array, sigma: Any, sigma_next: Any, keys: Any) -> jax.Array:
    """Euler's step, then the mean of the slopes at its two ends (EDM, algorithm 1)."""
    x_hat = denoise(y, sigma)
    slope = (y - x_hat) / sigma
    y_euler = x_hat + (sigma_next / sigma) * (y - x_hat)

    def correct() -> jax.Array:
        # The branch is not taken at 0, but both are differentiated and vmapped: keep it finite.
        level = jnp.where(sigma_next > 0, sigma_next, sigma)
        slope_next = (y_euler - denoise(y_euler, level)) / level
        return y + (sigma_next - sigma) * (slope + slope_next) / 2

    return jax.lax.cond(sigma_next > 0, correct, lambda: y_euler)


@functools.cache
def ddpm(eta: float = 1.0) -> Solver:
    """Ancestral sampling: eta = 1 draws from the DDPM posterior, eta = 0 is ddim.

    With r = sigma'/sigma: s_up = eta sigma' sqrt(1 - r^2), s_down = sigma' sqrt(1 - eta^2 + eta^2
    r^2), y' = D + (s_down/sigma)(y - D) + s_up z. Written so because sqrt(sigma'^2 - s_up^2) is NaN
    in a jitted float32 step from 80 to 0.002.

    Args:
      eta: from 0 to 1.

    Raises:
      ValueError: if eta lies outside [0, 1].

    References:
      Ho et al. 2020, algorithm 2; Song et al. 2021, eq. 16.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1]; got {eta}.")

    def step(denoise: Callable, y: jax.Array, sigma: Any, sigma_next: Any, keys: Any) -> jax.Array:
        x_hat = denoise(y, sigma)
        ratio = sigma_next / sigma
        s_up = eta * sigma_next * jnp.sqrt(1 - ratio**2)
        s_down = sigma_next * jnp.sqrt(1 - eta**2 + eta**2 * ratio**2)
        z = jax.vmap(lambda key: jax.random.normal(key, y.shape[1:], y.dtype))(keys)
        return x_hat + (s_down / sigma) * (y - x_hat) + s_up * z

    return stateless(step, stochastic=eta > 0, affine=eta == 0)


def _dpmpp_2m_step(
    denoise: Callable, y: jax.Array, state: Any, sigma: Any, sigma_next: Any, keys: Any
) -> tuple[jax.Array, Any]:
    """DPM-Solver++(2M) in lambda = -log sigma; the first and the last step are of first order.

    With h = lambda' - lambda and r = h_last / h: D' = (1 + 1/(2r)) D - 1/(2r) D_last,
    y' = (sigma'/sigma) y + (1 - sigma'/sigma) D'.
    """
    x_last, sigma_last = state
    x_hat = denoise(y, sigma)
    # Without a step before (sigma_last = 0) or after (sigma_next = 0) there is nothing to
    # extrapolate: the weight of the memory is 0, and no log of 0 is taken.
    both = (sigma_last > 0) & (sigma_next > 0)
    h = jnp.log(sigma / jnp.where(both, sigma_next, sigma / 2))
    h_last = jnp.log(jnp.where(both, sigma_last, 2 * sigma) / sigma)
    memory = jnp.where(both, h / (2 * h_last), 0)
    extrapolated = x_hat + memory * (x_hat - x_last)
    y_next = extrapolated + (sigma_next / sigma) * (y - extrapolated)
    return y_next, (x_hat, sigma)


ddim = stateless(_ddim, affine=True)
heun = stateless(_heun, nfe=lambda num_steps: 2 * num_steps - 1, affine=True)
dpmpp_2m = Solver(
    lambda y: (jnp.zeros_like(y), jnp.zeros((), y.dtype)), _dpmpp_2m_step, affine=True
)

# The names that `solver=` accepts.
SOLVERS: dict[str, Solver] = {"ddim": ddim, "heun": heun, "ddpm": ddpm(), "dpmpp_2m": dpmpp_2m}
