"""A data set in memory: training images, held-out images, and what is known about them.

Images are NHWC, uint8 as they lie on disk (turned into model units, u / 127.5 - 1, only after a
batch was gathered), or float32 already in model units. Held-out images are always there: without
them no measure has a control. Everything here is NumPy on the host.
"""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from jdiff import _check


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Training and held-out images. Make it by `from_arrays` or `load`, which check what came.

    Attributes:
      name: what the data is called in tables.
      images: uint8 [N, H, W, C], or float32 [N, H, W, C] in model units.
      labels: class of each image, int32 [N], or None.
      weights: probability of each image, float64 [N] summing to 1, or None for equal ones.
      held_out: images never trained on, [M, H, W, C] of the same dtype.
      held_out_labels: int32 [M], or None.
      num_classes: number of classes, None without labels.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    weights: np.ndarray | None
    held_out: np.ndarray
    held_out_labels: np.ndarray | None
    num_classes: int | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        h, w, c = self.images.shape[1:]
        return h, w, c

    @property
    def num_train(self) -> int:
        """Number of training images, N."""
        return len(self.images)

    def subset(self, n: int, key: jax.Array) -> "ImageData":
        """Returns the data with `n` training images drawn without replacement.

        Labels follow; weights follow and are normalised again; held-out images and the name stay.

        Args:
          n: how many, 1 .. num_train.
          key: typed key, for example jax.random.key(0); the same key draws the same images.

        Raises:
          ValueError: if n is out of range, or all weights drawn are zero.
          TypeError: if n is not a whole number or key not a typed key.

        Example:
          >>> import jax
          >>> from jdiff.data import load
          >>> load("digits").subset(100, jax.random.key(0))
          ImageData('digits': 100 training and 360 held-out images, 8x8x1 uint8, 10 classes)
        """
        n = _check.integer("n", n, minimum=1, maximum=self.num_train)
        rows = _permutation(_check.key("key", key), self.num_train)[:n]
        weights = None if self.weights is None else self.weights[rows]
        return dataclasses.replace(
            self,
            images=self.images[rows],
            labels=None if self.labels is None else self.labels[rows],
            weights=None if weights is None else _check.weights("weights drawn", weights, n),
        )

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that change with any value, shape, dtype or class count.

        The name does not enter. A run directory keeps it, to refuse other data.
        """
        digest = hashlib.sha256(repr(self.num_classes).encode())
        for field in ("images", "labels", "weights", "held_out", "held_out_labels"):
            array = getattr(self, field)
            if array is not None:
                digest.update(f"{field} {array.shape} {array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        classes = "no labels" if self.labels is None else f"{self.num_classes} classes"
        weighted = "" if self.weights is None else ", weighted"
        return (
            f"ImageData({self.name!r}: {self.num_train} training and {len(self.held_out)} held-out "
            f"images, {size} {self.images.dtype}, {classes}{weighted})"
        )


def from_arrays(
    images: Any,
    labels: Any = None,
    *,
    held_out: Any = None,
    weights: Any = None,
    key: jax.Array | None = None,
    held_out_labels: Any = None,
    name: str = "arrays",
    num_classes: int | None = None,
) -> ImageData:
    """Makes checked `ImageData` from arrays. Duplicates and order are left as they come.

    Args:
      images: training images [N, H, W, C]: uint8, or floats in model units (in [-1, 1] unless
        H = W = 1, as toy data).
      labels: integers [N] in 0 .. num_classes - 1, or None.
      held_out: images [M, H, W, C] like the training images, or a fraction in (0, 1) of `images`
        to split off. Required.
      weights: non-negative [N], normalised to sum 1, or None. Not with a fraction: held-out
        images have no weights.
      key: typed key that picks the images split off; used and required only with a fraction.
      held_out_labels: integers [M], or None. Not with a fraction: then they follow from `labels`.
      name: what the data is called in tables.
      num_classes: number of classes; None means the largest label + 1.

    Raises:
      TypeError: on a wrong dtype, or a key that is not a typed threefry key.
      ValueError: on anything else that does not fit, naming the argument.

    Example:
      >>> import jax, numpy as np
      >>> faces = np.zeros((20, 4, 4, 3), np.uint8)
      >>> from_arrays(faces, held_out=0.25, key=jax.random.key(0))
      ImageData('arrays': 15 training and 5 held-out images, 4x4x3 uint8, no labels)
    """
    images = _check.images("images", images)
    if labels is None and (held_out_labels is not None or num_classes is not None):
        given = "num_classes" if held_out_labels is None else "held_out_labels"
        raise ValueError(f"{given} is given without labels; give labels= too.")
    if num_classes is not None:
        num_classes = _check.integer("num_classes", num_classes)
    if labels is not None:
        labels = _check.labels("labels", labels, len(images), num_classes)
    if weights is not None:
        weights = _check.weights("weights", weights, len(images))

    if held_out is None:
        raise ValueError(
            "held_out= is missing: give images that are not trained on, or a fraction in (0, 1) "
            "of images to split off (with key=). Every measure needs them as its control."
        )
    if isinstance(held_out, int | float | np.number):
        if held_out_labels is not None or weights is not None:
            given = "weights" if held_out_labels is None else "held_out_labels"
            raise ValueError(
                f"{given} cannot be used with held_out as a fraction; got held_out={held_out}. "
                "Give held_out as an array of images."
            )
        train, held = _split(len(images), held_out, key)
        images, held_out = images[train], images[held]
        if labels is not None:
            labels, held_out_labels = labels[train], labels[held]
    else:
        held_out = _check.images("held_out", held_out, shape=images.shape[1:])
        if held_out.dtype != images.dtype:
            raise TypeError(
                f"held_out must have the dtype of images, {images.dtype}; got {held_out.dtype}."
            )
        if held_out_labels is not None:
            held_out_labels = _check.labels(
                "held_out_labels", held_out_labels, len(held_out), num_classes
            )
    if labels is not None and num_classes is None:
        held_out_top = -1 if held_out_labels is None else int(held_out_labels.max())
        num_classes = max(int(labels.max()), held_out_top) + 1
    return ImageData(name, images, labels, weights, held_out, held_out_labels, num_classes)


def _permutation(key: jax.Array, n: int) -> np.ndarray:
    return np.asarray(jax.random.permutation(key, n))


def _split(n: int, fraction: Any, key: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the training and of the held-out images."""
    fraction = _check.number("held_out (a fraction)", fraction, above=0.0, below=1.0)
    if key is None:
        raise ValueError(
            "key= is missing: a held_out fraction is picked by a key, jax.random.key(0)."
        )
    order = _permutation(_check.key("key", key), n)
    num_held_out = round(fraction * n)
    if not 0 < num_held_out < n:
        raise ValueError(
            f"held_out must leave at least one image on both sides; got {fraction} of {n} images."
        )
    return order[num_held_out:], order[:num_held_out]
