"""The device's part of exact nearest neighbours: the smallest lower bounds of squared distances.

|q - r|^2 - |a|^2 = |b|^2 - 2 a.b, with a = q - m, b = r - m for any centre m. A scan over blocks
of references takes it by float32 matmul, subtracts a bound of the rounding, and keeps the smallest.
References stay as they lie in memory (uint8) and become floats one block at a time. Where they are
divided over devices, each lists its own, and the smallest of all lists are kept.
The bound is the standard one for sums of products, dim u |a||b|: Higham 2002, Accuracy and
Stability of Numerical Algorithms, section 3.1.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from jdiff import _exact, _pixels, parallel


def rounding(a_norm: Any, b_norm: Any, centre_norm: Any, offset: Any, dim: int) -> Any:
    """A bound of the error of |b|^2 - 2 a.b + offset in float32, for jax and NumPy alike.

    Sums of dim products (2^-23 is twice the unit roundoff, which leaves room for the bfloat16
    passes of a TPU), the conversion of q and r and their centring, and underflow.
    """
    sums = (dim + 32) * b_norm * (b_norm + 2 * a_norm)
    conversion = 8 * centre_norm * (a_norm + b_norm)
    return 2.0**-23 * (sums + conversion + 4 * abs(offset)) + dim * 2.0**-120


def _block(references: jax.Array, centre: jax.Array, start: Any, block: int, images: bool) -> Any:
    rows = jax.lax.dynamic_slice_in_dim(references, start, block)
    rows = (_pixels.to_unit(rows) if images else rows) - centre[None]
    # Without the barrier the conversion may be fused into the matmul and run once a query tile.
    return jax.lax.optimization_barrier(rows)


def _places(num: int, block: int) -> tuple[jax.Array, jax.Array]:
    """Of each block its first row, and its first row that no block before it held.

    The last block ends at the last row and overlaps its neighbour: padding would copy the data.
    """
    first_new = jnp.arange(-(-num // block), dtype=jnp.int32) * block
    return jnp.minimum(first_new, num - block), first_new


@functools.partial(jax.jit, static_argnames=("block", "images", "mesh"))
def squares(
    references: jax.Array,
    centre: jax.Array,
    block: int,
    images: bool,
    mesh: Mesh | AbstractMesh | None = None,
) -> jax.Array:
    """|r - centre|^2 of every reference, [N]; arguments as in `shortlist`."""
    each = functools.partial(_squares, block=block, images=images)
    in_specs = (parallel.SPLIT, parallel.WHOLE)
    return parallel.map_shards(each, mesh, in_specs, parallel.SPLIT)(references, centre)


def _squares(references: jax.Array, centre: jax.Array, block: int, images: bool) -> jax.Array:
    def step(sums: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        b = _block(references, centre, start, block, images)
        return jax.lax.dynamic_update_slice(sums, jnp.sum(b * b, axis=1), (start,)), None

    num = len(references)
    return jax.lax.scan(step, jnp.zeros(num, jnp.float32), _places(num, block)[0])[0]


@functools.partial(jax.jit, static_argnames=("width", "block", "images", "mesh"))
def shortlist(
    queries: jax.Array,
    a_norms: jax.Array,
    own: jax.Array,
    references: jax.Array,
    squares: jax.Array,
    allowed: jax.Array,
    offsets: jax.Array,
    centre: jax.Array,
    before: tuple[jax.Array, jax.Array] | None = None,
    first: Any = 0,
    *,
    width: int,
    block: int,
    images: bool,
    mesh: Mesh | AbstractMesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The `width` smallest lower bounds of |b|^2 - 2 a.b + offset, and their references.

    Q queries, N references, D values.

    Args:
      queries: float32 [Q, D], converted.
      a_norms: [Q], |query - centre|.
      own: int32 [Q], the reference each query may not find, or -1.
      references: [N, D] as they lie in memory: uint8 stays uint8.
      squares: [N], |reference - centre|^2.
      allowed: bool [N].
      offsets: [N], added to the squared distances.
      centre: [D].
      before: the lists of references that were searched before, which go on; only without a mesh.
      first: the number of the first of these references in all.
      width: how many are kept, at most N without `before`.
      block: references a step, at most those of one device.
      images: whether references are converted to [0, 1].
      mesh: the devices that references, squares, allowed and offsets are divided over, N a multiple
        of their number; None where they lie whole.

    Returns:
      Lower bounds [Q, width], growing, and int32 indices [Q, width]; where fewer are allowed the
      bounds end in inf.
    """
    each = functools.partial(_shortlist, width=width, block=block, images=images)
    if mesh is None:
        given = (references, squares, allowed, offsets, centre)
        return each(queries, a_norms, own - first, *given, before=before, first=first)
    in_specs = (*[parallel.WHOLE] * 3, *[parallel.SPLIT] * 4, parallel.WHOLE)
    merged = functools.partial(_merged, width=width, block=block, images=images)
    return parallel.map_shards(merged, mesh, in_specs)(
        queries, a_norms, own, references, squares, allowed, offsets, centre
    )


def _merged(
    queries: jax.Array,
    a_norms: jax.Array,
    own: jax.Array,
    references: jax.Array,
    *rest: jax.Array,
    width: int,
    block: int,
    images: bool,
) -> tuple[jax.Array, jax.Array]:
    """On each device the list of its part, then of all lists the smallest, numbered in all."""
    num = len(references)
    first = parallel.axis_index() * num
    lower, indices = _shortlist(
        queries, a_norms, own - first, references, *rest,
        width=min(width, num), block=block, images=images,
    )  # fmt: skip
    # Devices in order: of equal bounds the smallest index stands first.
    smallest, at = jax.lax.top_k(-parallel.join_devices(lower), width)
    return -smallest, jnp.take_along_axis(parallel.join_devices(indices + first), at, axis=1)


def _shortlist(
    queries: jax.Array,
    a_norms: jax.Array,
    own: jax.Array,
    references: jax.Array,
    squares: jax.Array,
    allowed: jax.Array,
    offsets: jax.Array,
    centre: jax.Array,
    *,
    width: int,
    block: int,
    images: bool,
    before: tuple[jax.Array, jax.Array] | None = None,
    first: Any = 0,
) -> tuple[jax.Array, jax.Array]:
    num, dim = references.shape
    a = queries - centre[None]
    centre_norm = jnp.sqrt(jnp.sum(centre * centre))
    slice_of = lambda x, start: jax.lax.dynamic_slice_in_dim(x, start, block)[None]

    def step(
        best: tuple[jax.Array, jax.Array], place: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        start, first_new = place
        b = _block(references, centre, start, block, images)
        b_squares, offset = slice_of(squares, start), slice_of(offsets, start)
        value = b_squares - 2 * _exact.einsum("qd,bd->qb", a, b) + offset
        value -= rounding(a_norms[:, None], jnp.sqrt(b_squares), centre_norm, offset, dim)
        rows = start + jnp.arange(block, dtype=jnp.int32)[None]
        usable = slice_of(allowed, start) & (rows >= first_new) & (rows != own[:, None])
        # The best so far stand in front: a partial sort then moves almost nothing.
        values = jnp.concatenate([best[0], jnp.where(usable, value, jnp.inf)], axis=1)
        smallest, at = jax.lax.top_k(-values, width)
        old = jnp.take_along_axis(best[1], jnp.minimum(at, width - 1), axis=1)
        return (-smallest, jnp.where(at < width, old, first + start + at - width)), None

    shape = (len(queries), width)
    empty = jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
    return jax.lax.scan(step, empty if before is None else before, _places(num, block))[0]
