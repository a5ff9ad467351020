"""Who lies in whose ball, for all pairs of two sets in one pass.

|q - r|^2 = |a|^2 + |b|^2 - 2 a.b, with a = q - m, b = r - m for any centre m, is taken by float32
matmul, a tile of pairs at a time, and compared with the squared radii of both. A comparison closer
than the bound of its rounding (shortlist.py) decides nothing: such pairs, near a sphere, are
measured again as float64 differences. So the answer is that of a float64 brute force, whatever the
tiles and the devices, and nothing of size queries x references is held. The queries of a tile are
divided over the devices of this process. A point on the sphere is inside.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from jdiff import _check, _exact, _pixels, parallel
from jdiff.metrics import inputs, shortlist

QUERIES = 1024  # at a time, on each device
NO_BALL = -np.inf  # a radius below every distance

# What the device says of a pair, one byte: bits that are set.
_IN_REFERENCE = 1  # the query lies in the reference's ball
_IN_QUERY = 2  # the reference lies in the query's ball
_OPEN = 4  # float32 cannot tell; no other bit is set


class Balls(NamedTuple):
    """Who lies in whose ball; n queries in P parts, N references.

    Attributes:
      inside: int [n], the number of references in whose balls each query lies.
      hit: bool [P, N], whether some query of the part lies in the reference's ball.
      reached: bool [P, N], whether the reference lies in the ball of some query of the part.
    """

    inside: np.ndarray
    hit: np.ndarray
    reached: np.ndarray


def in_balls(
    queries: Any,
    references: Any,
    *,
    radii: Any = None,
    query_radii: Any = None,
    num_parts: int = 1,
    block_size: int | None = None,
) -> Balls:
    """Finds the queries in balls around references, and the references in balls around queries.

    Args:
      queries: n images (uint8 or unclipped model units) or features.
      references: N images (uint8 or model units in [-1, 1]) or features. Images are compared on
        [0, 1], features as float32.
      radii: [N] Euclidean, of the references' balls; None if they have none.
      query_radii: [n] Euclidean, of the queries' balls; None if they have none.
      num_parts: P, from 1 to n; query i belongs to part i P // n.
      block_size: references in a tile, or None to choose; the answer does not depend on it.

    Returns:
      Balls.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on ranks or shapes that differ, non-finite values or a negative radius.

    Example:
      >>> found = in_balls(np.array([[0.5], [2.0]]), np.array([[0.0], [1.0]]), radii=[0.4, 1.0])
      >>> found.inside, found.hit
      (array([1, 1]), array([[False,  True]]))
    """
    references = inputs.real("references", references)
    queries = inputs.samples("queries", queries)
    inputs.same_shape("references", references, queries=queries)
    n, num, dim = len(queries), len(references), references[0].size
    radii = _radii("radii", radii, num, "reference")
    query_radii = _radii("query_radii", query_radii, n, "query")
    num_parts = _check.integer("num_parts", num_parts, maximum=n)
    part = np.arange(n) * num_parts // n
    # About 12 MB of floats a block, as in neighbors.py.
    default = min(4096, max(256, 3 * 2**20 // dim))
    size = default if block_size is None else _check.integer("block_size", block_size)
    block = min(num, size)

    images = references.ndim == 4
    # Any centre is right. One near the mean keeps |a| and |b|, and so the bound, small.
    sample = inputs.flat(references[:: max(1, num // 2048)])
    centre = _float32(sample.mean(axis=0, dtype=np.float64))
    mesh = parallel.row_devices()
    # uint8 stays uint8; one copy a device.
    whole = (references.reshape(num, dim), _squares(radii), centre)
    on_device = parallel.everywhere(whole, mesh)
    inside, seen = np.zeros(n, int), np.zeros((num_parts, num), np.uint8)
    most = parallel.rows_a_call(n, QUERIES, mesh)
    for first in range(0, n, most):
        ids = np.arange(first, min(n, first + most))
        points = inputs.flat(queries[ids])
        norms = np.linalg.norm(points - centre.astype(np.float64), axis=1)
        own = [
            parallel.split_rows(array, most, 0, mesh)  # one shape, one compilation
            for array in (points, _float32(norms), _squares(query_radii[ids]))
        ]
        for start in range(0, num, block):
            # The last block ends at the last row and overlaps its neighbour.
            begin = np.int32(min(start, num - block))
            pairs = _tile(*own, *on_device, begin, block=block, images=images, mesh=mesh)
            pairs = np.array(pairs)[: len(ids), start - begin :]
            i, j = np.nonzero(pairs >= _OPEN)
            distances = _distances(points, references, i, j + start)
            in_reference = distances <= radii[j + start]
            in_query = distances <= query_radii[ids[i]]
            pairs[i, j] = _IN_REFERENCE * in_reference + _IN_QUERY * in_query

            columns = slice(start, start + pairs.shape[1])
            inside[ids] += np.sum(pairs & _IN_REFERENCE, axis=1, dtype=int)
            for p in range(part[ids[0]], part[ids[-1]] + 1):
                seen[p, columns] |= np.bitwise_or.reduce(pairs[part[ids] == p], axis=0)
    return Balls(inside, (seen & _IN_REFERENCE) > 0, (seen & _IN_QUERY) > 0)


@functools.partial(jax.jit, static_argnames=("block", "images", "mesh"))
def _tile(
    queries: jax.Array,
    norms: jax.Array,
    query_squares: jax.Array,
    references: jax.Array,
    reference_squares: jax.Array,
    centre: jax.Array,
    begin: Any,
    *,
    block: int,
    images: bool,
    mesh: Mesh | AbstractMesh | None = None,
) -> jax.Array:
    """What float32 says of Q queries and the references begin .. begin + block - 1.

    Sums over pairs are left to the host: of 4096 x 1024 bytes NumPy takes them in 2 ms, XLA on a
    CPU in 40.

    Args:
      queries: float32 [Q, D], converted.
      norms: [Q], |query - centre|.
      query_squares: [Q], squared radii.
      references: [N, D], uint8 or float32.
      reference_squares: [N], squared radii.
      centre: [D].
      begin: the first reference of the block.
      block: references in the tile.
      images: whether references are converted to [0, 1].
      mesh: the devices that the queries, with norms and squares, are divided over, Q a multiple of
        their number; None for one device.

    Returns:
      uint8 [Q, block]: _IN_REFERENCE and _IN_QUERY, or _OPEN.
    """
    each = functools.partial(_pairs, block=block, images=images)
    in_specs = (*[parallel.SPLIT] * 3, *[parallel.WHOLE] * 4)
    return parallel.map_shards(each, mesh, in_specs, parallel.SPLIT)(
        queries, norms, query_squares, references, reference_squares, centre, begin
    )


def _pairs(
    queries: jax.Array,
    norms: jax.Array,
    query_squares: jax.Array,
    references: jax.Array,
    reference_squares: jax.Array,
    centre: jax.Array,
    begin: Any,
    *,
    block: int,
    images: bool,
) -> jax.Array:
    """What `_tile` says, of the queries of one device."""
    rows = jax.lax.dynamic_slice_in_dim(references, begin, block)
    r_squares = jax.lax.dynamic_slice_in_dim(reference_squares, begin, block)[None]
    b = (_pixels.to_unit(rows) if images else rows) - centre[None]
    b_squares = jnp.sum(b * b, axis=1)[None]
    a_norms, b_norms = norms[:, None], jnp.sqrt(b_squares)
    a_squares = a_norms * a_norms
    centre_norm = jnp.sqrt(jnp.sum(centre * centre))
    squares = a_squares + (b_squares - 2 * _exact.einsum("qd,bd->qb", queries - centre[None], b))

    def compare(radius_squares: jax.Array) -> tuple[jax.Array, jax.Array]:
        offset = a_squares + jnp.maximum(radius_squares, 0)
        bound = shortlist.rounding(a_norms, b_norms, centre_norm, offset, queries.shape[1])
        known = jnp.isfinite(squares + bound)  # what overflows decides nothing
        within = known & (squares + bound <= radius_squares)
        return within, ~(within | known & (squares - bound > radius_squares))

    in_reference, open_reference = compare(r_squares)
    in_query, open_query = compare(query_squares[:, None])
    says = lambda bit, yes: bit * yes.astype(jnp.uint8)
    pairs = says(_IN_REFERENCE, in_reference) + says(_IN_QUERY, in_query)
    return jnp.where(open_reference | open_query, jnp.uint8(_OPEN), pairs)


def _distances(
    points: np.ndarray, references: np.ndarray, i: np.ndarray, j: np.ndarray
) -> np.ndarray:
    """|points[i] - references[j]|, float64, of pairs (i, j); points are converted already."""
    distances = np.empty(len(i))
    step = max(1, 2**16 // points.shape[1])  # differences that stay in the processor's cache
    for start in range(0, len(i), step):
        some = slice(start, start + step)
        difference = points[i[some]].astype(np.float64) - inputs.flat(references[j[some]])
        distances[some] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    return distances


def _radii(name: str, radii: Any, num: int, whose: str) -> np.ndarray:
    if radii is None:
        return np.full(num, NO_BALL)
    radii = np.asarray(radii, np.float64)
    if radii.shape != (num,) or not np.all((radii >= 0) & np.isfinite(radii)):
        raise ValueError(
            f"{name} must be {num} finite numbers >= 0, one a {whose}; got shape {radii.shape}."
        )
    return radii


def _squares(radii: np.ndarray) -> np.ndarray:
    """Squared radii as float32, of no ball -inf."""
    return np.where(radii < 0, np.float32(NO_BALL), _float32(np.square(radii)))


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # where it is infinite nothing is decided
        return array.astype(np.float32)
