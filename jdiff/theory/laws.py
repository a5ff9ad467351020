"""`law(denoiser, sigmas, solver)`: the predicted distribution of samples, where there is one.

One table says which class has which law; whatever is not in it raises, naming those that are.
Laws never call the sampler: their agreement with samples is evidence.

Reference: Levine and Weiss 2026, arXiv 2605.16415.
"""

import difflib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from jdiff import _check, noise
from jdiff.denoisers import (
    BottleneckDenoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    NetworkDenoiser,
    OptimalDenoiser,
    PatchPolynomialDenoiser,
    PolynomialDenoiser,
    RandomPolynomialDenoiser,
)
from jdiff.denoisers.protocol import check_denoiser, check_levels
from jdiff.theory import atoms, linear, steps
from jdiff.theory.checks import LawCheck
from jdiff.theory.gaussian import GaussianLaw
from jdiff.theory.pushforward import PushForwardLaw


class Law(Protocol):
    """The predicted distribution of a denoiser's samples.

    Attributes:
      image_shape: (H, W, C).
      about: what it is the law of.
    """

    image_shape: tuple[int, int, int]
    about: str

    @property
    def mean(self) -> np.ndarray:
        """float64 [H, W, C], model units."""
        ...

    @property
    def covariance(self) -> np.ndarray:
        """float64 [D, D], made when asked for."""
        ...

    @property
    def eigenvalues(self) -> np.ndarray:
        """Variances along the law's axes, float64 [m], largest first."""
        ...

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """float32 [n, H, W, C], model units."""
        ...

    def check(self, samples: Any, *, alpha: float = 0.01) -> LawCheck:
        """Do samples obey?"""
        ...


def law(denoiser: Any, sigmas: Any = None, solver: str = "ddim") -> Any:
    """What a denoiser's samples are distributed like, exactly for the grid that is used.

    Args:
      denoiser: a closed form that has a law:
        LinearDenoiser, LocalLinearDenoiser, EquivariantLinearDenoiser, BottleneckDenoiser with a
        linear code and decoder, PolynomialDenoiser of degree 1 in several dimensions: a
        GaussianLaw; PolynomialDenoiser in one dimension: a PushForwardLaw (ddim and heun; under
        ddpm only degree 1 has a law, a GaussianLaw);
        OptimalDenoiser (sampled without labels) and the other BottleneckDenoisers: an AtomsLaw,
        points and their blends.
      sigmas: grid [T + 1] decreasing to 0; None takes what `jdiff.sample` takes.
      solver: "ddim", "heun" or "ddpm" (eta = 1).

    Returns:
      A Law: `mean`, `covariance`, `eigenvalues`, `sample(key, n)`, `check(samples)`.

    Raises:
      TypeError: if it is not a denoiser, or a Solver that is no name.
      ValueError: on a class, a parameterisation or a solver without a law, a bad grid, or levels
        that the denoiser was not fitted at.

    Example:
      >>> import jdiff
      >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
      >>> linear = jdiff.LinearDenoiser.fit(points)  # variance 1
      >>> law(linear, [2.0, 1.0, 0.0]).eigenvalues.round(4).tolist()  # 4 (3/5)^2 (1/2)^2
      [0.36]
    """
    check_denoiser(denoiser)
    if not isinstance(solver, str):
        raise TypeError(f"solver must be one of {', '.join(steps.SOLVERS)}; got {solver!r}.")
    if solver not in steps.SOLVERS:
        close = difflib.get_close_matches(solver, steps.SOLVERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"solver {solver!r} has no law.{hint} Those that have one: {', '.join(steps.SOLVERS)}."
        )
    if sigmas is None:
        own = denoiser.sigmas
        sigmas = noise.karras(18) if own is None else np.append(np.asarray(own), np.float32(0))
    grid = _check.sigmas("sigmas", sigmas)
    check_levels(denoiser, grid)
    return _of(denoiser)(grid, solver)


def continuous_law(denoiser: Any, sigma_max: float) -> GaussianLaw:
    """The Gaussian law in the limit of a fine grid from sigma_max to 0, for ddim and heun.

    Variance l sigma_max^2 / (l + sigma_max^2) along each axis: below the data's l where l is not
    small beside sigma_max^2.

    Args:
      denoiser: LinearDenoiser, EquivariantLinearDenoiser without patch_size, or BottleneckDenoiser
        with a linear code and decoder.
      sigma_max: where sampling starts, > 0, model units.

    Raises:
      TypeError: if it is not a denoiser.
      ValueError: on another class: of local ones the maps do not commute, so that only a grid has a
        closed form.

    Example:
      >>> import jdiff
      >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
      >>> continuous_law(jdiff.LinearDenoiser.fit(points), 2.0).eigenvalues.round(4).tolist()
      [0.8]
    """
    check_denoiser(denoiser)
    sigma_max = _check.number("sigma_max", sigma_max, above=0)
    if isinstance(denoiser, LinearDenoiser) or _is_affine_bottleneck(denoiser):
        return linear.principal_limit(denoiser, sigma_max)
    if isinstance(denoiser, EquivariantLinearDenoiser) and denoiser.patch_size is None:
        return linear.stationary_limit(denoiser, sigma_max)
    raise ValueError(
        f"denoiser {type(denoiser).__name__} has no continuous law in closed form; those that have "
        "one: LinearDenoiser, EquivariantLinearDenoiser without patch_size, BottleneckDenoiser "
        "with a linear code and decoder. Where there is one, `law` with a fine grid comes as near "
        "as you like."
    )


def _of(denoiser: Any) -> Callable[[np.ndarray, str], Any]:
    """The law of a class: (sigmas, solver) -> Law."""
    match denoiser:
        case LinearDenoiser():
            return lambda sigmas, solver: linear.principal(denoiser, sigmas, solver)
        case LocalLinearDenoiser():
            return lambda sigmas, solver: linear.local(denoiser, sigmas, solver)
        case EquivariantLinearDenoiser():
            return lambda sigmas, solver: linear.stationary(denoiser, sigmas, solver)
        case BottleneckDenoiser() if _is_affine_bottleneck(denoiser):
            return lambda sigmas, solver: linear.principal(denoiser, sigmas, solver)
        case BottleneckDenoiser():
            return lambda sigmas, solver: atoms.bottleneck(denoiser, sigmas, solver)
        case OptimalDenoiser():
            return lambda sigmas, solver: atoms.optimal(denoiser, sigmas, solver)
        case PolynomialDenoiser() if np.prod(denoiser.image_shape) == 1:
            return lambda sigmas, solver: _in_one_dimension(denoiser, sigmas, solver)
        case PolynomialDenoiser() if denoiser.degree == 1:
            return lambda sigmas, solver: linear.affine(denoiser, sigmas, solver)
    raise ValueError(f"denoiser {_without_law(denoiser)} Those that have a law: {_HAVE}")


def _in_one_dimension(denoiser: PolynomialDenoiser, sigmas: np.ndarray, solver: str) -> Any:
    if solver == "ddpm" and denoiser.degree == 1:
        return linear.affine(denoiser, sigmas, solver)
    if solver == "ddpm":
        raise ValueError(
            "solver 'ddpm' has no law for a polynomial denoiser: with fresh noise at each step the "
            "samples are no push-forward of the start. Those that have one: ddim, heun."
        )
    return PushForwardLaw(denoiser, sigmas, solver)


def _is_affine_bottleneck(denoiser: Any) -> bool:
    return isinstance(denoiser, BottleneckDenoiser) and denoiser.bank is None


_HAVE = (
    "LinearDenoiser, LocalLinearDenoiser, EquivariantLinearDenoiser, BottleneckDenoiser, "
    "OptimalDenoiser, PolynomialDenoiser in one dimension or of degree 1."
)


def _without_law(denoiser: Any) -> str:
    """Why a denoiser has no law."""
    name = type(denoiser).__name__
    match denoiser:
        case PolynomialDenoiser():
            return (
                f"{name} of degree {denoiser.degree} in {int(np.prod(denoiser.image_shape))} "
                "dimensions has no law in closed form: the moments of its samples do not close."
            )
        case RandomPolynomialDenoiser() | PatchPolynomialDenoiser():
            return (
                f"{name} has no law: divided by its largest entry, h(y) has degree 0 in y and is "
                "no polynomial; the moment theorem does not hold for it."
            )
        case NetworkDenoiser():
            return (
                f"{name} ({type(denoiser.module).__name__}, preconditioning "
                f"{denoiser.preconditioning}) has no law in closed form; of a bottleneck under x0, "
                "`jacobian_rank` bounds the dimension of its samples."
            )
    return f"{name} has no law."
