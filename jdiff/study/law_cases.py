"""What the study `laws` looks at: each case is data, an architecture, and where it is shown.

The cases are one table. A section is a place on the page; a family and a knob are a line and a
point in the figure that goes from the linear denoiser to the optimal one.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jdiff import data as data_room
from jdiff.data import ImageData

SECTIONS = (
    *("star", "two_points", "moments", "gaussian", "plane", "atoms", "without_law", "sweep"),
)

# Where samples are held against a law; the others show what has none, and how a knob moves.
CHECKED = ("star", "two_points", "moments", "gaussian", "plane", "atoms")


@dataclasses.dataclass(frozen=True)
class Case:
    """One architecture on one data set, in one section of the page.

    Attributes:
      section: one of `SECTIONS`.
      spec: the architecture, as a string.
      data: which data, a key of `Sets`.
      label: what the page calls it; the architecture's string unless given.
      knob: the degree, rank, patch size or code size.
      family: the line it belongs to in the sweep.
    """

    section: str
    spec: str
    data: str
    label: str = ""
    knob: int | None = None
    family: str | None = None

    @property
    def title(self) -> str:
        """What the page calls it."""
        return self.label or self.spec

    @property
    def slug(self) -> str:
        """A folder's name."""
        text = f"{self.section}-{self.data}-{self.spec}"
        return "".join(c if c.isalnum() or c in "._" else "-" for c in text)


class Sets:
    """The data sets of the cases by name, each made once.

    Attributes:
      images: the study's images.
    """

    def __init__(self, images: ImageData):
        """Images are the study's own; the toys are made here."""
        self.images = images

    @functools.cache  # noqa: B019  (lives as long as the study)
    def __getitem__(self, name: str) -> ImageData:
        """The study's "images", or one of `TOYS` with its argument, as in gauss_hermite:3."""
        if name == "images":
            return self.images
        maker, _, argument = name.partition(":")
        points, weights, held_out = TOYS[maker](int(argument or 0))
        shaped = lambda x: np.asarray(x, np.float32).reshape(len(x), 1, 1, -1)
        return data_room.from_arrays(
            shaped(points), held_out=shaped(held_out), weights=weights, name=name
        )


def _gauss_hermite(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """degree + 1 points with the moments of N(0, 1) up to order 2 degree + 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(degree + 1)
    return points, weights / weights.sum(), np.random.default_rng(1).normal(size=1000)


def _third_moment(_: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three points with the moments of N(0, 1) up to order 4, but for the third: 1, not 0.

    They are the roots of the cubic orthogonal to 1, x and x^2 under the moments 1 0 1 1 3 3.
    """
    moments = np.array([1.0, 0, 1, 1, 3, 3])
    hankel = moments[np.add.outer(range(3), range(3))]
    points = np.sort(np.roots([1, *np.linalg.solve(hankel, -moments[3:])[::-1]]))
    weights = np.linalg.solve(np.vander(points, 3, increasing=True).T, moments[:3])
    return points, weights, np.random.default_rng(1).normal(size=1000)


def _two_points(_: int) -> tuple[np.ndarray, None, np.ndarray]:
    return np.array([-1.0, 1.0]), None, np.random.default_rng(1).choice([-1.0, 1.0], 1000)


def _gaussian_points(n: int) -> tuple[np.ndarray, None, np.ndarray]:
    """So few points in the plane that a polynomial can come to tell them apart."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.5, (n, 2)), None, rng.normal(0, 0.5, (1000, 2))


def _two_moons(n: int) -> tuple[np.ndarray, None, np.ndarray]:
    toy = data_room.load("toy:two_moons")
    return toy.images.reshape(-1, 2)[:n], None, toy.held_out.reshape(-1, 2)


TOYS: dict[str, Callable[[int], Any]] = {
    "gauss_hermite": _gauss_hermite,
    "third_moment": _third_moment,
    "two_points": _two_points,
    "gaussian_points": _gaussian_points,
    "two_moons": _two_moons,
}

DEGREES = (1, 2, 3, 5, 7)


def cases(image_shape: tuple[int, int, int], num_train: int) -> list[Case]:
    """All cases for images of one shape and a training set of one size.

    Ranks, patches and codes are those that the images allow.

    Raises:
      ValueError: on data that are no images; points have sections of their own.
    """
    if min(image_shape[:2]) < 2:
        raise ValueError(
            f"data must be images of at least 2 x 2 pixels for the study laws, which has points in "
            f"a line and in the plane of its own; got {'x'.join(map(str, image_shape))}."
        )
    d, side = int(np.prod(image_shape)), min(image_shape[:2])
    most = min(num_train - 1, d)
    codes = [r for r in (1, 2, 4, 8, 16, 32, 64, 128, 256) if r <= most]
    patches = [k for k in (1, 3, 5, 7, 15) if k <= 2 * side - 1]
    low, high = codes[len(codes) // 3], codes[2 * len(codes) // 3]
    found = [
        Case("star", f"polynomial:degree={k}", f"gauss_hermite:{k}", knob=k) for k in (1, 2, 3, 5)
    ]
    found += [
        Case("two_points", f"polynomial:degree={k}", "two_points", knob=k) for k in (1, 3, 5, 7)
    ]
    moments = "polynomial:degree=2"
    found += [
        Case("moments", moments, "gauss_hermite:2", "A: three points", 2),
        Case("moments", moments, "gauss_hermite:7", "B: eight points, the same four moments", 2),
        Case("moments", moments, "third_moment", "C: three points, another third moment", 2),
    ]
    gaussian = ["linear", f"linear:rank={high}", f"linear:rank={low}"]
    gaussian += [f"local_linear:patch_size={k}" for k in (3, 5) if k in patches]
    gaussian += ["equivariant_linear"]
    gaussian += [f"equivariant_linear:patch_size={k}" for k in (3, 5) if k <= side]
    gaussian += [f"bottleneck:code_dim={low}"]
    if d <= 1024:  # it has (d + 1) d coefficients a level
        gaussian += ["polynomial:degree=1"]
    found += [Case("gaussian", spec, "images") for spec in gaussian]
    moons = "two_moons:120"
    found += [
        Case("plane", "optimal", moons),
        Case("plane", "linear", moons),
        Case("plane", "bottleneck:code_dim=1", moons),
        Case("plane", "bottleneck:code_dim=1,decoder=posterior", moons),
        Case("plane", "bottleneck:code_dim=1,code=posterior", moons),
        Case("plane", "bottleneck_mlp:code_dim=1", moons),
        Case("plane", "polynomial:degree=3", moons),
    ]
    found += [
        Case("atoms", "optimal", "images"),
        Case("atoms", f"bottleneck:code_dim={low},decoder=posterior", "images"),
        Case("atoms", f"bottleneck:code_dim={low},code=posterior", "images"),
        Case("atoms", f"bottleneck:code_dim={high},code=posterior", "images"),
    ]
    found += [
        Case("without_law", "random_polynomial:degree=1,num_features=256", "images"),
        Case("without_law", "random_polynomial:degree=3,num_features=256", "images"),
        Case("without_law", "patch_polynomial:degree=3", "images"),
        Case("without_law", f"bottleneck_mlp:code_dim={low}", "images", knob=low),
    ]
    found += _sweep(codes, patches)
    return found


def _sweep(codes: list[int], patches: list[int]) -> list[Case]:
    lines = [
        ("degree, points in the plane", "polynomial:degree={}", "gaussian_points:4", DEGREES),
        (
            "degree, random features",
            "random_polynomial:degree={},num_features=256",
            "images",
            DEGREES,
        ),
        ("rank", "linear:rank={}", "images", codes),
        ("patch size", "local_linear:patch_size={}", "images", patches),
        ("code size", "bottleneck:code_dim={},code=posterior", "images", codes),
    ]
    found = [
        Case("sweep", spec.format(knob), data, knob=knob, family=family)
        for family, spec, data, knobs in lines
        for knob in knobs
    ]
    ends = [Case("sweep", spec, "images", family=spec) for spec in ("linear", "optimal")]
    return found + ends
