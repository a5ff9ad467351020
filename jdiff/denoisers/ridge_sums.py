"""Affine ridge regression from sums over blocks: float32 on the device, float64 on the host.

    A = (Cov(h, h) + ridge mean(diag Cov(h, h)) I)^-1 Cov(h, x),   c = E x - A^T E h

A block's sums are contracted at full float32 precision; adding blocks, centring and solving are
float64. Nothing grows with the number of images.
"""

from typing import Any

import numpy as np

# Smallest direction, in units of the mean diagonal, that float32 sums can tell from rounding.
_RESOLVED = 4 * float(np.finfo(np.float32).eps)


class Sums:
    """Weighted sums over all blocks.

    Attributes:
      hh: [..., m, m]; hx: [..., m, D]; h: [..., m]; x: [D]; weight: a scalar.
    """

    def __init__(self) -> None:
        """Empty sums; the first block gives their shapes."""
        self.parts: list[np.ndarray] | None = None

    def add(self, parts: Any) -> None:
        """Adds one block's (hh, hx, h, x, weight)."""
        arrays = [np.asarray(part, np.float64) for part in parts]
        if self.parts is None:
            self.parts = arrays
        else:
            for total, part in zip(self.parts, arrays, strict=True):
                total += part


def solve(parts: Any, ridge: float, level: str) -> tuple[np.ndarray, np.ndarray]:
    """A [m, D] and c [D].

    Args:
      parts: (hh [m, m], hx [m, D], h [m], x [D], weight), float64.
      ridge: in units of the mean diagonal of Cov(h, h).
      level: what to call the level in an error.

    Raises:
      ValueError: if the covariance with its ridge is singular to float32 sums.
    """
    import scipy.linalg  # a tenth of a second that `import jdiff` need not take

    hh, hx, h, x, weight = parts
    h, x = h / weight, x / weight
    covariance, cross = hh / weight - np.outer(h, h), hx / weight - np.outer(h, x)
    m = len(h)
    scale = np.trace(covariance) / m
    if scale <= 1e-6 * np.trace(hh) / weight / m:  # constant features, up to float32 rounding
        return np.zeros_like(cross), x
    covariance[np.diag_indices(m)] += ridge * scale
    lapack: Any = scipy.linalg.lapack
    factor, failed = lapack.dpotrf(covariance, lower=1)
    rcond, norm = 0.0, np.abs(covariance).sum(0).max()
    if not failed:
        rcond = float(lapack.dpocon(factor, norm, uplo="L")[0])
    if rcond * norm < _RESOLVED * scale:
        raise ValueError(
            f"{level}: the covariance of the {m} features is singular (reciprocal condition "
            f"{rcond:.1e}, with ridge {ridge:g}); a larger ridge, for example "
            f"{max(1e-4, 100 * ridge):g}, or fewer features would make it regular."
        )
    a = scipy.linalg.cho_solve((factor, True), cross)
    return a, x - h @ a
