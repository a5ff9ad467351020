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
    place, inside = _windows(denoiser)
    l, u = _float64(denoiser.eigenvalues), _float64(denoiser.basis)
    channels = denoiser.image_shape[2]
    centre = (denoiser.patch_size**2 // 2) * channels + np.arange(channels)
    matrices: dict[float, Any] = {}

    def act(x: np.ndarray, sigma: float) -> np.ndarray:
        if sigma not in matrices:
            from scipy import sparse

            gained = u[:, centre] * (l / (l + sigma**2))[:, None]  # [P, C, K]
            w = np.einsum("pck,pik->pci", gained, u)
            rows = np.arange(u.shape[0] * channels).reshape(-1, channels, 1)
            kept = np.broadcast_to(inside[:, None], w.shape)
            entries = [np.broadcast_to(a, w.shape)[kept] for a in (w, rows, place[:, None])]
            d = len(denoiser.mean)
            matrices[sigma] = sparse.csr_array((entries[0], entries[1:]), (d, d))
        return matrices[sigma] @ x

    return _dense(denoiser, _float64(denoiser.mean), act, sigmas, solver)


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
    mu, fitted = _float64(denoiser.mean), _float64(denoiser.sigmas)
    scale, coefficients = _float64(denoiser.scale), _float64(denoiser.coefficients)

    def act(x: np.ndarray, sigma: float) -> np.ndarray:
        t = np.argmin(np.abs(np.log(fitted / sigma)))
        # The constants are mu: it is what the best affine map gives at the mean.
        return coefficients[t, 1:].T @ (x / scale[t][:, None])

    return _dense(denoiser, mu, act, sigmas, solver)


def _dense(
    denoiser: Any, mu: np.ndarray, act: Callable, sigmas: np.ndarray, solver: str
) -> GaussianLaw:
    """A law whose covariance is a full D x D matrix, made when it is asked for."""

    def spectrum() -> tuple[MatrixAxes, np.ndarray]:
        covariance = of_map(act, np.eye(len(mu)), sigmas, solver)
        variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
        return MatrixAxes(axes[:, ::-1]), np.maximum(variances[::-1], 0)

    mean = mu - steps.carry(act, mu[:, None], sigmas, solver)[:, 0]
    return GaussianLaw(mean, denoiser.image_shape, spectrum, type(denoiser).__name__)


def _float64(a: Any) -> np.ndarray:
    return np.asarray(a, np.float64)


def _adjoint(a: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(a, -1, -2))
