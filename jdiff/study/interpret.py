"""What explains a network: the measures of its denoiser, and the closed forms it is compared with.

All networks of a study are compared with the same closed forms, fitted once, and with their samples
from the study's noise, drawn once a grid. What cannot be taken of the data, such as the locality of
points, is left out.
"""

import functools
from collections.abc import Callable

import numpy as np

from jdiff.data import ImageData
from jdiff.denoisers import Denoiser
from jdiff.study import measures

# Keys of measures.MEASURES, in the order of the report.
NAMES = ("psnr_gap", "locality_profile", "equivariance_error", "explained_by", "agreements")


# Less than an evaluation takes, since a study explains every run of every network: some seconds.
_MOST_LEVELS = 5
_NUM_IMAGES = {
    "psnr_gap": 128,
    "locality_profile": 8,
    "equivariance_error": 16,
    "explained_by": 64,
}


class Explanations:
    """The closed forms that explain the networks of a study on one training set.

    Attributes:
      data: training and held-out images.
      seed: of the noise that denoisers are measured with.
      draw: (denoiser, name of a grid) -> samples [n, H, W, C] from the study's noise.
    """

    def __init__(
        self, data: ImageData, seed: int, draw: Callable[[Denoiser, str], np.ndarray]
    ) -> None:
        """Nothing is fitted before it is asked for."""
        self.data, self.seed, self.draw = data, seed, draw
        self._samples: dict[tuple[str, str], np.ndarray] = {}

    @functools.cached_property
    def references(self) -> dict[str, Denoiser]:
        """The closed forms by the names they go by."""
        return measures.references(self.data)

    def of(self, denoiser: Denoiser, samples: np.ndarray, grid: str) -> measures.Measured:
        """Measures of a denoiser and of its samples, and why others were not taken.

        Args:
          denoiser: a network.
          samples: [n, H, W, C].
          grid: the grid that they were drawn at.
        """
        subject = measures.Subject(
            samples,
            self.data,
            denoiser,
            seed=self.seed,
            redraw=lambda reference: self._redraw(reference, grid),
            references=self.references,
            most_levels=_MOST_LEVELS,
            num_images=_NUM_IMAGES,
        )
        return measures.measure(subject, NAMES, say=lambda _: None, skip=True)

    def optimal(self, grid: str) -> np.ndarray:
        """The optimal denoiser's samples of the study's noise at a grid."""
        return self._redraw(self.references["optimal"], grid)

    def _redraw(self, reference: Denoiser, grid: str) -> np.ndarray:
        (name,) = (name for name, known in self.references.items() if known is reference)
        if (name, grid) not in self._samples:
            self._samples[name, grid] = self.draw(reference, grid)
        return self._samples[name, grid]
