"""Noise levels: sigma grids for sampling, the draws for training, and the corruption itself.

The one convention is y = x + sigma z with z ~ N(0, I) (variance exploding). The
variance-preserving x_t = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) z is the same thing with
y = x_t / sqrt(alpha_bar) and sigma = sqrt((1 - alpha_bar) / alpha_bar); it is converted here.
Grids decrease to a closing 0, are computed in float64 and cast to float32 once.

References: Karras et al. 2022 (EDM), eq. 5 and table 1; Ho et al. 2020 (DDPM), section 4; Nichol
and Dhariwal 2021, eq. 17.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check

_VP_STEPS = 1000  # DDPM's discrete time steps, of which vp grids take an even subset.


def karras(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> np.ndarray:
    """EDM's grid: sigma^(1/rho) evenly spaced from sigma_max to sigma_min, then 0.

    Args:
      num_steps: T, the number of sampler steps; 1 gives (sigma_max, 0).
      sigma_min: last positive level, model units.
      sigma_max: first level, model units.
      rho: bends the grid towards small levels.

    Returns:
      float32 [T + 1], decreasing, the last 0.

    Raises:
      ValueError: if not 0 < sigma_min < sigma_max, or rho <= 0, or num_steps < 1.

    Example:
      >>> karras(3, sigma_min=1.0, sigma_max=4.0, rho=1.0)
      array([4. , 2.5, 1. , 0. ], dtype=float32)

    References:
      Karras et al. 2022, eq. 5.
    """
    steps = _steps(num_steps, sigma_min, sigma_max)
    rho = _check.number("rho", rho, above=0)
    ends = np.float64(sigma_max) ** (1 / rho), np.float64(sigma_min) ** (1 / rho)
    return _grid((ends[0] + steps * (ends[1] - ends[0])) ** rho)


def log_linear(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> np.ndarray:
    """Evenly spaced log sigma from sigma_max to sigma_min, then 0. float32 [num_steps + 1].

    Example:
      >>> log_linear(3, sigma_min=1.0, sigma_max=4.0)
      array([4., 2., 1., 0.], dtype=float32)
    """
    steps = _steps(num_steps, sigma_min, sigma_max)
    return _grid(np.float64(sigma_max) * (np.float64(sigma_min) / sigma_max) ** steps)


def vp_linear(num_steps: int, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """DDPM's linear betas (1,000 of them), `num_steps` evenly spaced levels, then 0.

    Args:
      num_steps: T, from 1 to 1000.
      beta_min: first beta.
      beta_max: last beta.

    Returns:
      float32 [T + 1] of sigma = sqrt((1 - alpha_bar) / alpha_bar); 157.4 to 0.01 for 1000 steps.

    References:
      Ho et al. 2020, section 4.
    """
    beta_min = _check.number("beta_min", beta_min, above=0, below=1)
    beta_max = _check.number("beta_max", beta_max, above=beta_min, below=1)
    return _vp_grid(num_steps, np.linspace(beta_min, beta_max, _VP_STEPS))


def vp_cosine(num_steps: int, s: float = 0.008) -> np.ndarray:
    """The cosine schedule (betas capped at 0.999), `num_steps` evenly spaced levels, then 0.

    alpha_bar(t) is proportional to cos^2(pi/2 (t + s) / (1 + s)), t in 1/1000 .. 1.

    Args:
      num_steps: T, from 1 to 1000.
      s: offset that keeps the first betas from vanishing.

    Returns:
      float32 [T + 1].

    References:
      Nichol and Dhariwal 2021, eq. 17.
    """
    s = _check.number("s", s, above=0)
    t = np.arange(_VP_STEPS + 1) / _VP_STEPS
    alpha_bar = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    return _vp_grid(num_steps, np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999))


def alpha_bar_to_sigma(alpha_bar: Any) -> Any:
    """sigma = sqrt((1 - alpha_bar) / alpha_bar), alpha_bar in (0, 1]."""
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def sigma_to_alpha_bar(sigma: Any) -> Any:
    """alpha_bar = 1 / (1 + sigma^2)."""
    return 1 / (1 + sigma**2)


def corrupt(x: jax.Array, sigma: jax.Array, z: jax.Array) -> jax.Array:
    """The noisy observation y = x + sigma z.

    Args:
      x: clean images [B, H, W, C], model units.
      sigma: noise level, scalar or [B].
      z: standard normal noise, shaped like x.
    """
    return x + per_row(sigma, x) * z


def per_row(values: jax.Array, like: jax.Array) -> jax.Array:
    """A scalar or [B] as an array that multiplies the rows of `like` [B, ...]."""
    return jnp.reshape(values, jnp.shape(values) + (1,) * (like.ndim - jnp.ndim(values)))


def edm_lognormal(key: jax.Array) -> jax.Array:
    """One training level: log sigma ~ N(-1.2, 1.2^2), as EDM trains (its table 1)."""
    return jnp.exp(-1.2 + 1.2 * jax.random.normal(key, (), jnp.float32))


def log_uniform(key: jax.Array) -> jax.Array:
    """One training level: log sigma uniform between log 0.002 and log 80."""
    ends = np.log(0.002), np.log(80.0)
    return jnp.exp(jax.random.uniform(key, (), jnp.float32, *ends))


# Each draws one level from one key; batches vmap it.
TRAINING_NOISE: dict[str, Callable[[jax.Array], jax.Array]] = {
    "edm_lognormal": edm_lognormal,
    "log_uniform": log_uniform,
}


def training_noise(noise: str | float) -> Callable[[jax.Array], jax.Array]:
    """The function key -> sigma that a name, or one fixed level, stands for.

    Raises:
      ValueError: on an unknown name (close matches listed) or a level that is not positive.
    """
    if isinstance(noise, str):
        return TRAINING_NOISE[_check.choice("noise", noise, TRAINING_NOISE)]
    level = _check.number("noise", noise, above=0)
    return lambda key: jnp.asarray(level, jnp.float32)


# The grids that a string such as "karras:18" can name.
GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "karras": karras,
    "log_linear": log_linear,
    "vp_linear": vp_linear,
    "vp_cosine": vp_cosine,
}


def parse_grid(spec: str) -> np.ndarray:
    """The grid that "name:num_steps" names, float32 [num_steps + 1].

    Raises:
      ValueError: on an unknown name or a number of steps that is not whole.

    Example:
      >>> len(parse_grid("karras:18"))
      19
    """
    name, _, steps = spec.partition(":")
    grid = GRIDS[_check.choice("sigmas", name, GRIDS)]
    if not steps.isdecimal():
        raise ValueError(f"sigmas must read NAME:STEPS, for example karras:18; got {spec!r}.")
    return grid(int(steps))


def _steps(num_steps: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """0 .. 1 in num_steps points, after the checks that every grid shares."""
    num_steps = _check.integer("num_steps", num_steps)
    sigma_min = _check.number("sigma_min", sigma_min, above=0)
    _check.number("sigma_max", sigma_max, above=sigma_min)
    return np.linspace(0, 1, num_steps)


def _vp_grid(num_steps: int, betas: np.ndarray) -> np.ndarray:
    num_steps = _check.integer("num_steps", num_steps, maximum=_VP_STEPS)
    sigma = alpha_bar_to_sigma(np.cumprod(1 - betas))
    # Evenly spaced from the noisiest level; one step is that level alone.
    chosen = np.rint(np.linspace(_VP_STEPS - 1, 0, num_steps)).astype(int)
    return _grid(sigma[chosen])


def _grid(positive: np.ndarray) -> np.ndarray:
    return _check.sigmas("sigmas", np.append(positive, 0.0))
