"""Laws of finite support: the optimal denoiser, and bottlenecks with a posterior, generate points.

    optimal                                 x_n, the training set
    linear code, posterior decoder          x_n, where the codes V^T x_n are distinct
    posterior code, linear decoder          mu + V V^T (x_n - mu): new as images, copies in the code

The code u follows the optimal denoiser of the projected data and ends at one of them. On a finite
grid it ends within a few times the last sigma: codes closer than that blend, and the atoms' weights
are w_n only in the limit of a fine grid and a large start. So the check asks where samples lie, not
how often.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (bottleneck denoisers).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels
from jdiff.denoisers import BottleneckDenoiser, OptimalDenoiser
from jdiff.metrics import distinct, nearest
from jdiff.metrics.intervals import wilson
from jdiff.theory import checks

# Codes farther apart than this many last sigmas do not blend: at 12, two equal weights differ by
# exp(-12 * 12 / 2 + 12 * 3) for a code that ended three sigmas away from its atom.
_RESOLVED = 12
# How near, in units of the atoms' total deviation, a sample must lie to be at an atom.
_AT = 1e-2


class AtomsLaw:
    """Samples are points of a finite set.

    Attributes:
      atoms: float32 [N, H, W, C], model units.
      weights: float64 [N], their probabilities in the limit.
      resolved: share of the weight on atoms whose codes do not blend with others at the last sigma.
      image_shape: (H, W, C).
      about: what it is the law of, for messages.
    """

    def __init__(self, atoms: Any, weights: Any, codes: Any, last_sigma: float, about: str = ""):
        """Stores the atoms and finds which of them have a code of their own.

        Args:
          atoms: float [N, H, W, C], model units.
          weights: [N].
          codes: [N, r], where the atoms lie in the space in which the denoiser tells them apart.
          last_sigma: the last positive level.
          about: the denoiser's class.
        """
        self.atoms = np.asarray(atoms, np.float32)
        self.image_shape, self.about = self.atoms.shape[1:], about
        self.weights = _check.weights("weights", weights, len(self.atoms))
        self.resolved = 1.0
        codes, flat = np.asarray(codes, np.float32), self.atoms.reshape(len(self.atoms), -1)
        # An atom and its exact repeat are one atom: their blend is the atom.
        self._firsts = distinct(flat)
        which = nearest(flat, flat[self._firsts], 1).indices[:, 0]
        self._merged = np.bincount(which, self.weights, len(self._firsts))
        if len(self._firsts) > 1:
            gaps = nearest(codes, codes[self._firsts], 2).distances[:, 1]
            self.resolved = float(self.weights[gaps > _RESOLVED * last_sigma].sum())

    @property
    def mean(self) -> np.ndarray:
        """float64 [H, W, C]."""
        return np.tensordot(self.weights, self.atoms.astype(np.float64), 1)

    @property
    def covariance(self) -> np.ndarray:
        """float64 [D, D]."""
        x = (self.atoms - self.mean[None]).reshape(len(self.atoms), -1)
        return (x.T * self.weights) @ x

    @property
    def eigenvalues(self) -> np.ndarray:
        """Of the covariance, float64 [min(N, D)], largest first."""
        x = (self.atoms - self.mean[None]).reshape(len(self.atoms), -1)
        return np.linalg.svd(np.sqrt(self.weights)[:, None] * x, compute_uv=False) ** 2

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws atoms by their weights: float32 [n, H, W, C]."""
        _check.key("key", key)
        n = _check.integer("num_samples", num_samples)
        chosen = jax.random.choice(key, len(self.weights), (n,), p=jnp.asarray(self.weights))
        return jnp.asarray(self.atoms[np.asarray(chosen)])

    def check(self, samples: Any, *, alpha: float = 0.01) -> checks.LawCheck:
        """Do samples lie at the atoms?

        Args:
          samples: [n, H, W, C], n >= 20, model units.
          alpha: not used: no row leaves anything to a known chance. Where few atoms are resolved
            (`resolved` near 0) the check says little.

        Returns:
          LawCheck; its row "at atoms" compares the share of samples at an atom (within 1 % of the
          atoms' deviation) with the share of atoms that do not blend.
        """
        tests = checks.Rows(alpha)
        x, came, overflowed = checks.admit(samples, self.image_shape)
        checks.overflow(tests, overflowed, came)
        flat = self.atoms.reshape(len(self.atoms), -1)[self._firsts]
        found = nearest(x.astype(np.float32), flat, 1)
        off = self._merged[:, None] * (flat - self.mean.reshape(1, -1)) ** 2
        # Of a single atom there is no deviation: then what float32 tells apart.
        tolerance = max(_AT * np.sqrt(np.sum(off)), 1e-5 * (1 + np.abs(flat).max()))
        near = found.distances[:, 0] <= tolerance
        # Blends end somewhere, but which share of samples ends in them is not known exactly: what
        # is predicted is that no fewer samples lie at atoms than atoms are resolved, to 10 %.
        upper = wilson(int(near.sum()), len(x))[1]
        tests.fact(
            "at atoms", near.mean(), self.resolved, upper >= 0.9 * self.resolved > 0,
            f"share of samples at one of {len(flat):,} atoms (law: those that do not blend)",
        )  # fmt: skip
        visited = len(np.unique(found.indices[near, 0]))
        # What n draws by the weights visit; the weights are those of the limit.
        expected = float(np.sum(1 - (1 - self._merged) ** len(x)))
        tests.fact(
            "visited", visited, expected, visited >= 0.2 * expected * self.resolved,
            "different atoms among the samples",
        )  # fmt: skip
        return tests.finish(f"atoms of {self.about}", came, overflowed)


def optimal(denoiser: OptimalDenoiser, sigmas: np.ndarray) -> AtomsLaw:
    """The training set itself."""
    images, weights = _bank(denoiser.bank)
    atoms = images.reshape(-1, *denoiser.image_shape)
    return AtomsLaw(atoms, weights, images, float(sigmas[-2]), type(denoiser).__name__)


def bottleneck(denoiser: BottleneckDenoiser, sigmas: np.ndarray) -> AtomsLaw:
    """Training images, or their projections on the code's subspace."""
    bank: Any = denoiser.bank
    codes, weights = _bank(bank)
    if denoiser.decoder == "posterior":
        values = np.asarray(bank.values)[_real(bank)]
        atoms = _pixels.to_model(values)
    else:
        v = np.asarray(denoiser.basis, np.float64)
        atoms = np.asarray(denoiser.mean, np.float64) + codes.astype(np.float64) @ v.T
    atoms = atoms.reshape(-1, *denoiser.image_shape)
    return AtomsLaw(atoms, weights, codes, float(sigmas[-2]), type(denoiser).__name__)


def _bank(bank: Any) -> tuple[np.ndarray, np.ndarray]:
    """The images of a bank that have weight, [N, D] in model units, and their weights."""
    kept = _real(bank)
    weights = np.exp(np.asarray(bank.log_weights, np.float64)[kept])
    return _pixels.to_model(np.asarray(bank.images)[kept]), weights


def _real(bank: Any) -> np.ndarray:
    return np.isfinite(np.asarray(bank.log_weights))
