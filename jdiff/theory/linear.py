"""The Gaussian law of every affine denoiser, and its limit for a fine grid.

Each class is a mean and a map W_sigma, here derived anew in float64 from what was fitted: diagonal
along principal axes, a filter a frequency, or a sparse matrix. A fine grid started at sigma_0
gives, where all W_sigma have the eigenvectors v_i, variance l_i sigma_0^2 / (l_i + sigma_0^2) and
mean mu - sqrt(l_i / (l_i + sigma_0^2)) v_i (v_i . mu) along v_i.

Reference: Levine and Weiss 2026, arXiv 2605.16415; the derivations are ours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jdiff.denoisers import (
    BottleneckDenoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    PolynomialDenoiser,
)
from jdiff.theory import steps
from jdiff.theory.gaussian import (
    FourierAxes,
    GaussianLaw,
    MatrixAxes,
    halves,
    negated,
    of_map,
)

# What a law of full matrices may take, in host memory.
MAX_BYTES = 16 * 2**30
# Share of entries above which products of arrays are faster than sparse ones.
_SPARSE = 0.1
# Values of windows' bases that are turned to float64 at once.
_BLOCK = 2**24
# Covariances of so many values take one thread: eigh gains little by several, and where cores are
# shared they wait for each other (4,096 values on two busy cores: 21 s, and 48 to 73 with two).
_ONE_THREAD = 4096


def principal(
    denoiser: LinearDenoiser | BottleneckDenoiser, sigmas: np.ndarray, solver: str
) -> GaussianLaw:
    """Of an affine denoiser along principal axes: G is diagonal there, and 0 outside."""
    l = _float64(denoiser.eigenvalues)
    act = lambda u, sigma: l / (l + sigma**2) * u
    ones = np.ones_like(l)
    variances = of_map(
        act, ones, sigmas, solver, multiply=np.multiply, adjoint=lambda diagonal: diagonal
    )
    return _along(denoiser, steps.carry(act, ones, sigmas, solver), variances)


def principal_limit(denoiser: LinearDenoiser | BottleneckDenoiser, sigma_max: float) -> GaussianLaw:
    """The same for a grid refined without end."""
    l = _float64(denoiser.eigenvalues)
    gain = np.sqrt(l / (l + sigma_max**2))
    return _along(denoiser, gain, (sigma_max * gain) ** 2)


def _along(denoiser: Any, gain: np.ndarray, variances: np.ndarray) -> GaussianLaw:
    mu, v = _float64(denoiser.mean), _float64(denoiser.basis)
    mean = mu - v @ (gain * (v.T @ mu))
    order = np.argsort(-variances, kind="stable")
    spectrum = lambda: (MatrixAxes(v[:, order]), variances[order])
    return GaussianLaw(mean, denoiser.image_shape, spectrum, type(denoiser).__name__)


def stationary(denoiser: EquivariantLinearDenoiser, sigmas: np.ndarray, solver: str) -> GaussianLaw:
    """Of a circular filter: a C x C map a frequency."""
    act, identity = _filter(denoiser)
    covariance = of_map(act, identity, sigmas, solver)
    return _texture(denoiser, steps.carry(act, identity, sigmas, solver)[0, 0], covariance)


def stationary_limit(denoiser: EquivariantLinearDenoiser, sigma_max: float) -> GaussianLaw:
    """The same for a grid refined without end; only without patch_size, where the maps commute."""
    u, l = np.asarray(denoiser.basis, np.complex128), _float64(denoiser.eigenvalues)
    gain = np.sqrt(l / (l + sigma_max**2))
    g = (u * gain[..., None, :]) @ _adjoint(u)
    return _texture(denoiser, g[0, 0], sigma_max**2 * g @ _adjoint(g))


def _filter(denoiser: EquivariantLinearDenoiser) -> tuple[Callable, np.ndarray]:
    """How W_sigma acts on [H, W, C, C], and the identity of that form."""
    height, width, channels = denoiser.image_shape
    l = _float64(denoiser.eigenvalues)
    identity = np.broadcast_to(np.eye(channels, dtype=complex), (height, width) + (channels,) * 2)
    if denoiser.patch_size is None:
        u = np.asarray(denoiser.basis, np.complex128)

        def act(x: np.ndarray, sigma: float) -> np.ndarray:
            return (u * (l / (l + sigma**2))[..., None, :]) @ (_adjoint(u) @ x)

        return act, identity
    k, v = denoiser.patch_size, _float64(denoiser.basis)
    offsets = np.arange(k) - k // 2
    centre = (k * k // 2) * channels + np.arange(channels)
    rows, columns = (
        np.exp(2j * np.pi * np.outer(np.arange(size) / size, offsets)) for size in (height, width)
    )

    def act_locally(x: np.ndarray, sigma: float) -> np.ndarray:
        # D(y)_p = sum_d w_d y_{p+d}: row c of the filter is the window's Wiener row of the centre.
        w = (v[centre] * (l / (l + sigma**2))) @ v.T
        w = w.reshape(channels, k, k, channels)
        return np.einsum("ha,wb,iabj->hwij", rows, columns, w, optimize=True) @ x

    return act_locally, identity


def _texture(
    denoiser: EquivariantLinearDenoiser, gain: np.ndarray, covariance: np.ndarray
) -> GaussianLaw:
    """A stationary law from G at frequency 0 [C, C] and the covariances [H, W, C, C]."""
    mu = _float64(denoiser.mean)
    mean = np.broadcast_to(mu - np.real(gain) @ mu, denoiser.image_shape)

    def spectrum() -> tuple[FourierAxes, np.ndarray]:
        own, first = halves(*covariance.shape[:2])
        # At its own negative a frequency's covariance is real; elsewhere -f is the conjugate of f.
        symmetric = np.where(own[..., None, None], np.real(covariance), covariance)
        variances, colors = np.linalg.eigh((symmetric + _adjoint(symmetric)) / 2)
        second = ~(own | first)
        colors[second] = negated(colors, (0, 1)).conj()[second]
        variances[second] = negated(variances, (0, 1))[second]
        flat = np.maximum(variances.reshape(-1), 0)
        order = np.argsort(-flat, kind="stable")
        return FourierAxes(colors, order), flat[order]

    return GaussianLaw(mean, denoiser.image_shape, spectrum, type(denoiser).__name__)


def local(denoiser: LocalLinearDenoiser, sigmas: np.ndarray, solver: str) -> GaussianLaw:
    """Of windows cut off at the border: W_sigma is sparse, the maps do not commute."""
    from scipy import sparse

    levels = [sigma for sigma, _ in steps.pairs(sigmas)]
    d, width = len(denoiser.mean), denoiser.basis.shape[-1]
    _check_memory(denoiser, d, 8 * len(levels) * d * width)
    place, inside = (np.repeat(a, denoiser.image_shape[2], axis=0) for a in _windows(denoiser))
    weights = _window_weights(denoiser, levels)
    ends = np.append(0, np.cumsum(inside.sum(axis=1)))

    def matrix(sigma: float) -> Any:
        entries = (weights[levels.index(sigma)][inside], place[inside], ends)
        return sparse.csr_array(entries, (d, d))

    return _dense(denoiser, matrix, sparse.eye_array(d, format="csr"), sigmas, solver)


def _window_weights(denoiser: LocalLinearDenoiser, levels: list[float]) -> np.ndarray:
    """Row [T, D, K] of W_sigma at every level: U diag(l / (l + sigma^2)) U^T e_p of the window."""
    channels, num, width = denoiser.image_shape[2], len(levels), denoiser.basis.shape[-1]
    centre = (denoiser.patch_size**2 // 2) * channels + np.arange(channels)
    weights = np.empty((num, denoiser.basis.shape[0], channels, width))
    noise = np.square(levels)[:, None]
    size = max(1, _BLOCK // width**2)
    for start in range(0, weights.shape[1], size):
        part = slice(start, start + size)
        l, u = _float64(denoiser.eigenvalues[part]), _float64(denoiser.basis[part])
        gains = l[:, None] / (l[:, None] + noise)  # [P, T, K]
        gained = (u[:, None, centre] * gains[:, :, None]).reshape(len(u), -1, width)
        found = (gained @ u.swapaxes(1, 2)).reshape(len(u), num, channels, width)
        weights[:, part] = found.swapaxes(0, 1)
    return weights.reshape(num, -1, width)


def _windows(denoiser: LocalLinearDenoiser) -> tuple[np.ndarray, np.ndarray]:
    """Of every pixel's window [P, K]: which value of the image, and whether it is inside."""
    height, width, channels = denoiser.image_shape
    offsets = np.arange(denoiser.patch_size) - denoiser.patch_size // 2
    i = np.arange(height)[:, None, None, None, None] + offsets[None, None, :, None, None]
    j = np.arange(width)[None, :, None, None, None] + offsets[None, None, None, :, None]
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    place = (i * width + j) * channels + np.arange(channels)
    inside = np.broadcast_to(inside, place.shape)
    return place.reshape(height * width, -1), inside.reshape(height * width, -1)


def affine(denoiser: PolynomialDenoiser, sigmas: np.ndarray, solver: str) -> GaussianLaw:
    """Of a polynomial of degree 1 in more than one dimension: a matrix a level."""
    fitted, scale = _float64(denoiser.sigmas), _float64(denoiser.scale)

    def matrix(sigma: float) -> np.ndarray:
        t = np.argmin(np.abs(np.log(fitted / sigma)))
        # The constants are mu: it is what the best affine map gives at the mean.
        return _float64(denoiser.coefficients[t, 1:]).T / scale[t]

    return _dense(denoiser, matrix, np.eye(len(denoiser.mean)), sigmas, solver)


def _dense(
    denoiser: Any, matrix: Callable[[float], Any], identity: Any, sigmas: np.ndarray, solver: str
) -> GaussianLaw:
    """A law whose covariance is a full D x D matrix, made when it is asked for.

    Every step becomes one matrix A_i. What is sparse stays so until it has filled up.

    Args:
      denoiser: whose law it is.
      matrix: sigma -> W_sigma, an array or a sparse one.
      identity: of the same kind.
      sigmas: the grid [T + 1].
      solver: one of `steps.SOLVERS`.
    """
    mu = _float64(denoiser.mean)
    act = lambda x, sigma: matrix(sigma) if x is identity else matrix(sigma) @ x

    def covariance() -> np.ndarray:
        scale = float(sigmas[0]) ** 2
        total: Any = scale * identity if solver == "ddpm" else identity
        for sigma, sigma_next in steps.pairs(sigmas):
            a = _filled(steps.step(act, identity, sigma, sigma_next, solver))
            total = _filled(a @ total)
            if solver == "ddpm":
                noise = steps.noise_variance(sigma, sigma_next, solver)
                total = _filled(a @ total.T) + noise * identity  # A (A C)^T + noise
        total = total if solver == "ddpm" else scale * (total @ total.T)
        return total if isinstance(total, np.ndarray) else total.toarray()

    def spectrum() -> tuple[MatrixAxes, np.ndarray]:
        from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

        with threadpool_limits(1 if len(mu) <= _ONE_THREAD else None, "blas"):
            symmetric = covariance()
            variances, axes = np.linalg.eigh((symmetric + symmetric.T) / 2)
        return MatrixAxes(axes[:, ::-1]), np.maximum(variances[::-1], 0)

    mean = mu - steps.carry(act, mu[:, None], sigmas, solver)[:, 0]
    return GaussianLaw(mean, denoiser.image_shape, spectrum, type(denoiser).__name__)


def _filled(a: Any) -> Any:
    """A sparse matrix as an array, if so much of it is not zero that products of arrays win."""
    if isinstance(a, np.ndarray) or a.nnz <= _SPARSE * a.shape[0] * a.shape[1]:
        return a
    return a.toarray()


def _check_memory(denoiser: Any, d: int, more: int) -> None:
    needed = 6 * 8 * d**2 + more
    if needed > MAX_BYTES:
        raise ValueError(
            f"the law of {type(denoiser).__name__} on images of {d:,} values takes full matrices "
            f"and window weights of {needed / 2**30:,.1f} GiB together, more than "
            f"{MAX_BYTES / 2**30:g} GiB; smaller images or windows, or EquivariantLinearDenoiser, "
            "whose law is diagonal, take less."
        )


def _float64(a: Any) -> np.ndarray:
    return np.asarray(a, np.float64)


def _adjoint(a: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(a, -1, -2))
