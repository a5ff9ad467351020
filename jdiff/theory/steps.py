"""One sampler step in float64: the equations of ddim, heun and ddpm, written down a second time.

Laws never call the sampler: they take its steps here, in NumPy, so that the agreement of a law with
samples is evidence. With r = sigma'/sigma, D the denoiser and D' the same at sigma':

    ddim   y' = D(y) + r (y - D(y))
    heun   y' = y + (sigma' - sigma)/2 [(y - D(y))/sigma + (y_e - D'(y_e))/sigma'],  y_e ddim's step
    ddpm   y' = D(y) + r^2 (y - D(y)) + sigma' sqrt(1 - r^2) z

and y' = D(y) at sigma' = 0. Sources: Song et al. 2021, Karras et al. 2022, Ho et al. 2020.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Solvers that have a law; dpmpp_2m keeps a memory, and so its step is no map of y alone.
SOLVERS = ("ddim", "heun", "ddpm")


def carry(denoise: Callable, y: Any, sigmas: np.ndarray, solver: str) -> Any:
    """Takes y through the whole grid without the noise of ddpm; linear where `denoise` is.

    Args:
      denoise: (y, sigma) -> x_hat, on arrays of whatever form y has.
      y: the start.
      sigmas: float [T + 1], decreasing to 0.
      solver: one of `SOLVERS`.
    """
    for sigma, sigma_next in pairs(sigmas):
        y = step(denoise, y, sigma, sigma_next, solver)
    return y


def pairs(sigmas: np.ndarray) -> Iterator[tuple[float, float]]:
    """The steps (sigma, sigma') of a grid, in float64."""
    grid = np.asarray(sigmas, np.float64)
    return zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True)


def step(denoise: Callable, y: Any, sigma: float, sigma_next: float, solver: str) -> Any:
    """One step of a solver, without its noise."""
    x_hat = denoise(y, sigma)
    if sigma_next == 0:
        return x_hat
    ratio = sigma_next / sigma
    if solver == "ddpm":
        return x_hat + ratio**2 * (y - x_hat)
    euler = x_hat + ratio * (y - x_hat)
    if solver == "ddim":
        return euler
    slopes = (y - x_hat) / sigma + (euler - denoise(euler, sigma_next)) / sigma_next
    return y + (sigma_next - sigma) / 2 * slopes


def noise_variance(sigma: float, sigma_next: float, solver: str) -> float:
    """Variance of the noise that a step adds to each value."""
    return (sigma_next**2 * (1 - (sigma_next / sigma) ** 2)) if solver == "ddpm" else 0.0
