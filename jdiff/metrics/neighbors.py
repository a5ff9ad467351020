"""Exact nearest neighbours, and membership in balls, among many references.

The device lists, for each query, the references with the smallest lower bounds of the squared
distance (shortlist.py). What the bounds cannot rule out is measured again, as float64 differences;
where a list proves too short a longer one is made. So the answer is that of a float64 brute force,
whatever the blocks and the devices, and nothing of size queries x references is held. The
references are divided over the devices of this process; their lists are merged there. A single CPU
searches them where they lie, part by part, and copies no more than two parts.

Cosines go the same way: between directions q/|q| and r/|r| the squared distance is 2 - 2 cos.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels, parallel
from jdiff.metrics import inputs, shortlist

QUERIES = 1024  # at a time
SPARE = 32  # candidates kept beyond those asked for; among near twins up to 19 were needed
WIDEN = 8  # longer lists are rare and each length is compiled: few, large steps up to all
# Bytes of a part of the references, where a CPU searches them part by part. The C library keeps as
# much when it is freed: a copy of all of them would cost more in page faults than in bandwidth.
PART = 24 * 2**20
# Directions rounded to float32 move by at most 2^-24 each, squared distances up to 4 by 2^-21.
DIRECTIONS = 2.0**-20


class Neighbors(NamedTuple):
    """Nearest references of n queries, nearest first.

    Attributes:
      distances: float64 [n, k], Euclidean.
      indices: int [n, k] into the references; of equally near ones the smallest index first.
    """

    distances: np.ndarray
    indices: np.ndarray


class CosineNeighbors(NamedTuple):
    """Most similar references of n queries, most similar first.

    Attributes:
      cosines: float64 [n, k], in [-1, 1].
      indices: int [n, k] into the references; of equally similar ones the smallest index first.
    """

    cosines: np.ndarray
    indices: np.ndarray


def nearest(
    queries: Any,
    references: Any,
    k: int,
    *,
    among: Any = None,
    exclude_self: bool = False,
    block_size: int | None = None,
) -> Neighbors:
    """The k nearest references of each query, exactly.

    Args:
      queries: images [n, H, W, C] (uint8 or unclipped model units) or features [n, d].
      references: images [N, H, W, C] (uint8 or model units in [-1, 1]) or features [N, d]. Images
        are compared on [0, 1], features as float32.
      k: how many, from 1 to the number of references allowed.
      among: indices of the references allowed, or None for all; `distinct(references)` leaves the
        repeats out.
      exclude_self: whether query i is reference i, and not its own neighbour.
      block_size: references in a block, or None to choose; the answer does not depend on it.

    Returns:
      Neighbors.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on ranks or trailing shapes that differ, non-finite values, or a k too large.

    Example:
      >>> found = nearest(np.array([[0.9]]), np.array([[0.0], [1.0], [3.0]]), 2)
      >>> found.indices, found.distances.round(2)
      (array([[1, 0]]), array([[0.1, 0.9]]))
    """
    given = _arguments(queries, references, k, among, exclude_self)
    search = _Search(given.references, given.allowed, np.zeros(len(given.allowed)), block_size)
    squares, indices = _smallest(search, given.queries, given.k, exclude_self)
    return Neighbors(np.sqrt(squares), indices)


def nearest_cosine(
    queries: Any,
    references: Any,
    k: int,
    *,
    among: Any = None,
    exclude_self: bool = False,
    block_size: int | None = None,
) -> CosineNeighbors:
    """The k references of largest cosine q.r / (|q| |r|) with each query, exactly.

    The directions r/|r| are held as float32 [N, d], on accelerators too: of uint8 images that is
    four times their size.

    Args:
      queries: images [n, H, W, C] (uint8 or unclipped model units) or features [n, d].
      references: images [N, H, W, C] (uint8 or model units in [-1, 1]) or features [N, d]. Images
        are compared on [0, 1], where nearly all are alike, features as float32.
      k: how many, from 1 to the number of references allowed.
      among: indices of the references allowed, or None for all.
      exclude_self: whether query i is reference i, and not its own neighbour.
      block_size: references in a block, or None to choose; the answer does not depend on it.

    Returns:
      CosineNeighbors.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on ranks or trailing shapes that differ, non-finite values, a k too large, or
        rows of zeros, which have no direction (with their number).

    Example:
      >>> found = nearest_cosine(np.array([[2.0, 2.0]]), np.array([[0.0, 1.0], [3.0, 4.0]]), 2)
      >>> found.indices, found.cosines.round(2)
      (array([[1, 0]]), array([[0.99, 0.71]]))
    """
    given = _arguments(queries, references, k, among, exclude_self)
    _no_zero_rows(queries=given.queries, references=given.references)
    none = np.zeros(len(given.allowed))
    search = _Search(given.references, given.allowed, none, block_size, cosine=True)
    opposite, indices = _smallest(search, given.queries, given.k, exclude_self)
    return CosineNeighbors(-opposite, indices)


def inside_balls(
    queries: Any, references: Any, radii: Any, *, block_size: int | None = None
) -> np.ndarray:
    """Whether each query lies in the ball of radius radii[j] around some reference j, exactly.

    Args:
      queries: as in `nearest`, n of them.
      references: as in `nearest`, N of them.
      radii: [N] Euclidean, not negative; a point on the sphere is inside.
      block_size: as in `nearest`.

    Returns:
      bool [n].

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on ranks or shapes that differ, non-finite values or a negative radius.
    """
    references = inputs.real("references", references)
    queries = inputs.samples("queries", queries)
    inputs.same_shape("references", references, queries=queries)
    radii = np.asarray(radii, np.float64)
    if radii.shape != (len(references),) or not np.all((radii >= 0) & np.isfinite(radii)):
        raise ValueError(
            f"radii must be {len(references)} finite numbers >= 0, one a reference; "
            f"got shape {radii.shape}."
        )

    def settle(found: _Found) -> tuple[np.ndarray, list[np.ndarray]]:
        # Bounds of |q - r|^2 - radius^2.
        lower, upper = found.lower + found.shift, found.upper + found.shift
        surely = np.any(upper <= 0, axis=1)
        distances = np.sqrt(found.exact((lower <= 0) & ~surely[:, None]))
        inside = surely | np.any(distances <= radii[found.indices], axis=1)
        return inside | found.complete | (lower[:, -1] > 0), [inside]

    allowed = np.ones(len(references), bool)
    search = _Search(references, allowed, -np.square(radii), block_size)
    return search.run(queries, SPARE, settle)[0]


class _Arguments(NamedTuple):
    queries: np.ndarray
    references: np.ndarray
    allowed: np.ndarray  # bool [N]
    k: int


def _arguments(queries: Any, references: Any, k: Any, among: Any, exclude_self: bool) -> _Arguments:
    references = inputs.real("references", references)
    queries = inputs.samples("queries", queries)
    inputs.same_shape("references", references, queries=queries)
    allowed = np.ones(len(references), bool)
    if among is not None:
        allowed[:] = False
        allowed[np.asarray(among)] = True
    if exclude_self and len(queries) != len(references):
        raise ValueError(
            "queries must be the references themselves when exclude_self is set; got "
            f"{len(queries)} queries and {len(references)} references."
        )
    k = _check.integer("k", k)
    available = int(allowed.sum()) - (1 if exclude_self else 0)
    if k > available:
        kind = "references" if among is None else "references in among"
        others = " other than the query itself" if exclude_self else ""
        raise ValueError(f"k must be at most {available}, the number of {kind}{others}; got {k}.")
    return _Arguments(queries, references, allowed, k)


def _smallest(
    search: "_Search", queries: np.ndarray, k: int, exclude_self: bool
) -> list[np.ndarray]:
    """The k smallest exact values of each query, growing, and their references."""

    def settle(found: _Found) -> tuple[np.ndarray, list[np.ndarray]]:
        # At least k references lie within the k-th upper bound; whatever lies surely beyond it
        # is none of the k nearest.
        kth = np.partition(found.upper, k - 1, axis=1)[:, k - 1 : k]
        settled = found.complete | (found.lower[:, -1:] > kth)[:, 0]
        possible = (found.lower <= kth) & (found.lower < np.inf)
        values = found.exact(possible & settled[:, None])
        order = np.lexsort((found.indices, values), axis=-1)[:, :k]
        return settled, [np.take_along_axis(x, order, 1) for x in (values, found.indices)]

    return search.run(queries, k + SPARE, settle, exclude_self=exclude_self)


def _no_zero_rows(**arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        starts = range(0, len(array), QUERIES)
        zero = np.concatenate(
            [~np.any(inputs.flat(array[start : start + QUERIES]), axis=1) for start in starts]
        )
        if np.any(zero):
            raise ValueError(
                f"{name} must not hold rows of zeros (black images), whose cosine is not defined; "
                f"got {int(zero.sum())} of {len(array)}, the first at {int(np.argmax(zero))}."
            )


def _directions(array: np.ndarray) -> np.ndarray:
    """x / |x| of images on [0, 1] or features, float32 [n, d], rounded once."""
    rows = np.empty((len(array), math.prod(array.shape[1:])), np.float32)
    for start in range(0, len(array), QUERIES):
        x = inputs.flat(array[start : start + QUERIES]).astype(np.float64)
        rows[start : start + QUERIES] = x / np.sqrt(np.einsum("nd,nd->n", x, x))[:, None]
    return rows


class _Found(NamedTuple):
    """Candidates of m queries: bounds of |q - r|^2 + offset - shift, by growing lower bound."""

    lower: np.ndarray  # float64 [m, width]; inf where the reference is not allowed
    upper: np.ndarray
    shift: np.ndarray  # float64 [m, 1]
    indices: np.ndarray  # int [m, width]
    complete: bool  # whether every reference is listed
    exact: Callable[[np.ndarray], np.ndarray]  # mask -> float64 |q - r|^2, inf outside the mask;
    # where directions are listed -cos(q, r), which grows with their distance


class _Search:
    """The references on the devices, and the loop that lengthens the lists."""

    def __init__(
        self,
        references: np.ndarray,
        allowed: np.ndarray,
        offsets: np.ndarray,
        block_size: int | None,
        cosine: bool = False,
    ):
        self.images, self.cosine = references.ndim == 4, cosine
        self.rows = references.reshape(len(references), -1)
        listed = _directions(references) if cosine else self.rows
        self.convert = self.images and not cosine  # on the device
        num, dim = self.rows.shape
        # About 12 MB of floats a block: at 3,072 values a row twice as fast on a CPU as 50 MB.
        default = min(4096, max(256, 3 * 2**20 // dim))
        size = default if block_size is None else _check.integer("block_size", block_size)
        self.mesh = parallel.row_devices()
        filled = parallel.rows_a_call(num, num, self.mesh)  # all at once
        self.block = min(filled // (1 if self.mesh is None else self.mesh.size), size)
        # Any centre is right. One near the mean keeps |a| and |b|, and so the bound, small.
        sample = listed[:: max(1, num // 2048)]
        sample = _pixels.to_unit(sample) if self.convert else sample
        self.centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.allowed, self.offsets = allowed, offsets
        with np.errstate(over="ignore"):  # bounds that are not finite settle nothing
            offsets_f32 = offsets.astype(np.float32)
        # Rows that fill the last devices' parts are not allowed, whatever else they say.
        place = lambda array: parallel.split_rows(array, filled, 0, self.mesh)

        centre = self.on_device = jnp.asarray(self.centre)
        self.device: tuple[jax.Array, ...] | None = None
        of_part = self.block * max(1, PART // (self.block * listed[0].nbytes))
        if self.mesh is None and jax.default_backend() == "cpu" and of_part < num:
            # The last part ends at the last row and overlaps its neighbour: one shape for all.
            self.parts = [(min(new, num - of_part), new) for new in range(0, num, of_part)]
            self.of_part, self.listed, self.offsets_f32 = of_part, listed, offsets_f32
            found = np.empty(num, np.float32)
            for start, new in self.parts:
                rows = jax.device_put(listed[start : start + of_part])
                part = shortlist.squares(rows, centre, self.block, self.convert)
                found[new : start + of_part] = np.asarray(part)[new - start :]
            self.squares = found
        else:
            rows = place(listed)
            squares = shortlist.squares(rows, centre, self.block, self.convert, self.mesh)
            self.device = (rows, squares, place(allowed), place(offsets_f32))
            self.squares = np.asarray(squares)[:num]
        self.norms = np.sqrt(self.squares, dtype=np.float64)

    def run(
        self, queries: np.ndarray, width: int, settle: Callable, *, exclude_self: bool = False
    ) -> list[np.ndarray]:
        """Calls `settle` on ever longer lists until each query is settled; gathers its results."""
        own = np.arange(len(queries)) if exclude_self else np.full(len(queries), -1)
        parts = []
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            points = inputs.flat(queries[part])
            parts.append(self._run(points, own[part], width, settle, min(QUERIES, len(queries))))
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _run(
        self, points: np.ndarray, own: np.ndarray, width: int, settle: Callable, pad: int
    ) -> list[np.ndarray]:
        results: list[np.ndarray] = []
        pending = np.arange(len(points))
        while len(pending):
            remaining = []
            for ids, found in self._lists(points, own, pending, width, pad):
                settled, values = settle(found)
                if not results:
                    results = [np.empty((len(points), *v.shape[1:]), v.dtype) for v in values]
                for result, value in zip(results, values, strict=True):
                    result[ids[settled]] = value[settled]
                remaining.append(ids[~settled])
            pending = np.concatenate(remaining)
            width *= WIDEN
        return results

    def _lists(
        self, points: np.ndarray, own: np.ndarray, pending: np.ndarray, width: int, pad: int
    ) -> Iterator[tuple[np.ndarray, _Found]]:
        """Yields (which queries, their list): one from the device, or lists of everything."""
        num = len(self.rows)
        if width < num:
            yield pending, self._from_device(points[pending], own[pending], width, pad)
            return
        for ids in np.array_split(pending, max(1, len(pending) * num // 2**22)):
            indices = np.broadcast_to(np.arange(num), (len(ids), num))
            usable = self.allowed & (indices != own[ids, None])
            lower, upper = np.where(usable, -np.inf, np.inf), np.full(indices.shape, np.inf)
            exact = functools.partial(self._exact, points[ids], indices)
            yield ids, _Found(lower, upper, np.zeros((len(ids), 1)), indices, True, exact)

    def _parts(self) -> Iterator[tuple[int, tuple[jax.Array, ...]]]:
        """The number of its first row, and rows, squares, allowed and offsets, of each part."""
        if self.device is not None:
            yield 0, self.device
            return
        for start, new in self.parts:
            part = slice(start, start + self.of_part)
            allowed = self.allowed[part].copy()
            allowed[: new - start] = False
            arrays = (self.listed[part], self.squares[part], allowed, self.offsets_f32[part])
            yield start, tuple(map(jax.device_put, arrays))

    def _from_device(self, points: np.ndarray, own: np.ndarray, width: int, pad: int) -> _Found:
        exact = functools.partial(self._exact, points)
        points = _directions(points) if self.cosine else points
        a = points.astype(np.float64) - self.centre
        a_squares = np.square(a).sum(axis=1, keepdims=True)
        a_norms = np.sqrt(a_squares)
        fill = pad - len(points)  # one shape, one compilation
        # A sum that overflows float32 makes a bound that is not finite: nothing is settled by it,
        # and the query is measured against everything in float64.
        with np.errstate(over="ignore", invalid="ignore"):
            asked = (
                jnp.asarray(np.pad(points, ((0, fill), (0, 0)))),
                jnp.asarray(np.pad(a_norms[:, 0].astype(np.float32), (0, fill))),
                jnp.asarray(np.pad(own, (0, fill), constant_values=-1), jnp.int32),
            )
            found = None
            if self.device is None:  # empty lists, as the parts' are: one compilation
                shape = (pad, width)
                found = jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
            for first, (rows, squares, allowed, offsets) in self._parts():
                before = found
                found = shortlist.shortlist(
                    *asked,
                    rows,
                    squares,
                    allowed,
                    offsets,
                    self.on_device,
                    before=before,
                    first=first,
                    width=width,
                    block=self.block,
                    images=self.convert,
                    mesh=self.mesh,
                )
                jax.block_until_ready(before)  # two parts lie in memory at a time
            assert found is not None
            lower = np.asarray(found[0], np.float64)[: len(points)]
            indices = np.asarray(found[1])[: len(points)].astype(int)
            # Where lists end in inf they may name rows that only fill a device's part.
            indices = np.minimum(indices, len(self.rows) - 1)
            rounding = shortlist.rounding(
                a_norms,
                self.norms[indices],
                np.sqrt(np.square(self.centre, dtype=np.float64).sum()),
                self.offsets[indices],
                points.shape[1],
            )
            slack = DIRECTIONS if self.cosine else 0.0
            lower, upper = lower - slack, lower + 2 * rounding + slack
        exact = functools.partial(exact, indices)
        return _Found(lower, upper, a_squares, indices, False, exact)

    def _exact(self, points: np.ndarray, indices: np.ndarray, mask: np.ndarray) -> np.ndarray:
        values = np.full(indices.shape, np.inf)
        rows, columns = np.nonzero(mask)
        measure = _opposite_cosine if self.cosine else _square_distance
        step = max(1, 2**16 // points.shape[1])  # differences that stay in the processor's cache
        for start in range(0, len(rows), step):
            i, j = rows[start : start + step], columns[start : start + step]
            others = self.rows[indices[i, j]]
            others = _pixels.to_unit(others) if self.images else others
            values[i, j] = measure(points[i], others)
        return values


def _square_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = np.subtract(a, b, dtype=np.float64)
    return np.einsum("nd,nd->n", difference, difference)


def _opposite_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = [np.sqrt(np.einsum("nd,nd->n", x, x)) for x in (a, b)]
    cosine = np.einsum("nd,nd->n", a, b) / (norms[0] * norms[1])
    return -np.clip(cosine, -1.0, 1.0)  # it is not beyond 1 but for rounding
