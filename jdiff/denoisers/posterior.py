"""The posterior mean over a training set, exactly, in memory that does not grow with the set.

    x_hat = sum_n p_n x_n,   p = softmax_n( log w_n - |y - x_n|^2 / (2 sigma^2) )

A `lax.scan` over blocks of training images keeps a running maximum, a running sum and the weighted
sum of images. The logits come from a GEMM on centred data, log w_n + (y.x_n - |x_n|^2 / 2) /
sigma^2, whose rounding error grows as 1 / sigma^2. Where that error could show, the leading
candidates of each query are taken out, their logits recomputed from exact differences relative to
the first of them, and both parts merged. Nothing is truncated to nearest neighbours.

Where images are compared through a code, the codes are the bank's images and x_n its values.

A bank may be split over devices (`jdiff.parallel.shard`). Each device then takes the maximum m, the
sum s and the sum of images v over its own images, with exact logits relative to one image that all
agree on, and the parts are merged: M = max m, S = sum e^(m - M) s, V = sum e^(m - M) v.
"""

import functools
import math
from typing import Any, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from jdiff import _check, _pixels, parallel
from jdiff._exact import dot, einsum

# Rounding of a GEMM logit: about this factor times |y| max|x| / sigma^2. Measured on images of
# 784 and 3,072 values the error is 0.15 to 0.4 times that.
_GEMM_ERROR = 3e-7
# Logit errors above this send a batch the refined way (a weight's relative error is its logit's).
_TOLERANCE = 2e-4
# Exact candidates a query. Near twins compete in small groups; of more than 32 that are nearly
# equally near, the others keep the GEMM's logits (128 twins: weights off by 2e-4 at sigma 0.01).
_CANDIDATES = 32
# What all images outside the candidates may weigh together before they are left uncounted.
_NEGLIGIBLE = 1e-8


class Bank(flax.struct.PyTreeNode):
    """A training set as the core reads it; N images of D values, padded to M = whole blocks.

    Attributes:
      images: [M, D] uint8 or float32, as they came.
      log_weights: [M] float32; -inf for padding and for images of weight zero.
      half_norms: [M] float32, |x_n - center|^2 / 2.
      radius: scalar float32, the largest |x_n - center|.
      center: [1, D] float32, the mean image.
      labels: [M] int32 (-1 for padding), or None.
      block_size: images a scan step; whatever it is, the answer is the same.
      values: [M, E] uint8 or float32, what the posterior mean is taken of; None for the images.
      values_center: [1, E] float32, the mean value, or None.
      mesh: the devices that its rows are split over, or None where they lie whole.
    """

    sharded_fields = ("images", "log_weights", "half_norms", "labels", "values")

    images: jax.Array
    log_weights: jax.Array
    half_norms: jax.Array
    radius: jax.Array
    center: jax.Array
    labels: jax.Array | None
    block_size: int = flax.struct.field(pytree_node=False)
    values: jax.Array | None = None
    values_center: jax.Array | None = None
    mesh: Mesh | AbstractMesh | None = flax.struct.field(pytree_node=False, default=None)

    def shard(self, mesh: Mesh) -> "Bank":
        """The bank with its rows divided in order over the devices of `mesh`.

        An image keeps its number. Devices beyond the last image that has weight hold padding.
        """
        if self.mesh == mesh:
            return self
        counted = int(np.flatnonzero(np.asarray(self.log_weights) > -np.inf)[-1]) + 1
        per_device = -(-counted // mesh.size)
        num_blocks = -(-per_device // self.block_size)
        block_size = -(-per_device // num_blocks)
        num_rows = mesh.size * num_blocks * block_size
        fills = {"log_weights": -np.inf, "labels": -1}
        parts = {
            name: parallel.split_rows(
                np.asarray(rows)[:counted], num_rows, fills.get(name, 0), mesh
            )
            for name in self.sharded_fields
            if (rows := getattr(self, name)) is not None
        }
        whole = ("radius", "center", "values_center")
        rest = parallel.everywhere({name: getattr(self, name) for name in whole}, mesh)
        return self.replace(**parts, **rest, block_size=block_size, mesh=mesh)


class Posterior(NamedTuple):
    """The posterior of each of B queries.

    Attributes:
      mean: [B, E] posterior means, model units.
      indices: [B, K] training images of largest weight, in order of the GEMM's logits.
      weights: [B, K] their posterior weights p_n.
    """

    mean: jax.Array
    indices: jax.Array
    weights: jax.Array


class _Sums(NamedTuple):
    """A partial softmax: maximum m [B, 1], and by e^-m scaled sum s [B, 1] and values v [B, E]."""

    m: jax.Array
    s: jax.Array
    v: jax.Array


def bank(
    images: np.ndarray,
    weights: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    *,
    values: np.ndarray | None = None,
    block_size: int | None = None,
) -> Bank:
    """Prepares checked images for the core.

    Args:
      images: [N, H, W, C], uint8 or float in model units.
      weights: [N], not negative, not all zero; None weighs all alike.
      labels: int [N], or None.
      values: [N, ...], uint8 or float in model units: the posterior mean is taken of these, the
        images only say how likely each is; None for the images themselves.
      block_size: images a scan step; default 2^22 values a block, at most N.
    """
    n = len(images)
    flat = np.reshape(images, (n, -1))
    flat_values = None
    if values is not None:
        chex.assert_axis_dimension(values, 0, n)
        flat_values = np.reshape(values, (n, -1))
    if block_size is None:
        widest = max(a.shape[1] for a in (flat, flat_values) if a is not None)
        block_size = max(1, min(n, 2**22 // widest))
    block_size = min(_check.integer("block_size", block_size), n)
    chunks = [slice(i, i + 8192) for i in range(0, n, 8192)]
    center = _mean(flat, chunks)
    centered = (_pixels.to_model(flat[c]) - center for c in chunks)
    half_norms = np.concatenate([0.5 * np.sum(np.square(x, dtype=np.float64), 1) for x in centered])
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.full(n, 1 / n) if weights is None else weights)
    padding = -n % block_size
    pad = lambda a, value: np.concatenate([a, np.full((padding, *a.shape[1:]), value, a.dtype)])
    return Bank(
        images=jax.device_put(pad(flat, 0)),  # jnp.asarray holds a second copy for a while
        log_weights=jnp.asarray(pad(log_weights, -np.inf), jnp.float32),
        half_norms=jnp.asarray(pad(half_norms, 0), jnp.float32),
        radius=jnp.asarray(np.sqrt(2 * half_norms.max()), jnp.float32),
        center=jnp.asarray(center),
        labels=None if labels is None else jnp.asarray(pad(labels.astype(np.int32), -1)),
        block_size=block_size,
        values=None if flat_values is None else jax.device_put(pad(flat_values, 0)),
        values_center=None if flat_values is None else jnp.asarray(_mean(flat_values, chunks)),
    )


def _mean(flat: np.ndarray, chunks: list[slice]) -> np.ndarray:
    """The mean row [1, D] of rows [N, D], model units, summed in float64."""
    total = sum(_pixels.to_model(flat[c]).sum(0, dtype=np.float64) for c in chunks)
    return np.asarray(total / len(flat), np.float32)[None]


def posterior_mean(
    bank: Bank, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
) -> jax.Array:
    """The posterior mean of each query.

    Args:
      bank: the training set.
      y: noisy observations [B, D], model units.
      sigma: noise levels [B, 1] > 0.
      labels: [B], only images of this label count; a negative one admits every image.

    Returns:
      [B, E], model units; E = D without values.
    """
    return _on_devices(_mean_of, bank, y, sigma, labels)


def posterior(
    bank: Bank, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
) -> Posterior:
    """The posterior mean with the leading training images and their weights.

    Arguments as in `posterior_mean`; K = min(32, M) images a query are named. Places that no
    image fills have weight 0 and a number that no image has.
    """
    return _on_devices(_posterior_of, bank, y, sigma, labels)


def _on_devices(f: Any, bank: Bank, *query: jax.Array | None) -> Any:
    """f(bank, *query), on each device with its part of a bank that is split."""
    if bank.mesh is None:
        return f(bank, *query)
    return _split(f, bank, *parallel.everywhere(query, bank.mesh))


@functools.partial(jax.jit, static_argnums=0)
def _split(f: Any, bank: Bank, *query: jax.Array | None) -> Any:
    split_or_whole = lambda path, _: (
        parallel.SPLIT if path[0].name in Bank.sharded_fields else parallel.WHOLE
    )
    specs = jax.tree_util.tree_map_with_path(split_or_whole, bank)
    in_specs = (specs, *[parallel.WHOLE] * len(query))
    mesh: Any = bank.mesh  # not None, or `_on_devices` would not have come here
    return parallel.map_shards(f, mesh, in_specs)(bank, *query)


def _mean_of(
    bank: Bank, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
) -> jax.Array:
    query = _query(bank, y, sigma, labels)
    error = jnp.max(query.error)
    if bank.mesh is not None:
        # Hosts may round differently, and all devices must take the same way or wait forever.
        error = parallel.max_devices(error)
    sums = jax.lax.cond(
        error > _TOLERANCE,
        lambda: _refined(bank, query).sums,
        lambda: _scan(bank, query, exclude=None),
    )
    sums = _merge_devices(bank, sums)
    return _values_center(bank) + sums.v / sums.s


def _posterior_of(
    bank: Bank, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
) -> Posterior:
    sums, leaders, coarse, exact = _refined(bank, _query(bank, y, sigma, labels))
    sums = _merge_devices(bank, sums)
    if bank.mesh is not None:
        own = bank.images.shape[0]
        num_rows = own * bank.mesh.size
        leaders = jnp.where(leaders < own, leaders + parallel.axis_index() * own, num_rows)
        leaders, coarse, exact = (parallel.join_devices(x) for x in (leaders, coarse, exact))
        chosen = jax.lax.top_k(coarse, min(_CANDIDATES, num_rows))[1]
        leaders, exact = (jnp.take_along_axis(x, chosen, 1) for x in (leaders, exact))
    mean = _values_center(bank) + sums.v / sums.s
    return Posterior(mean, leaders, jnp.exp(exact - sums.m) / sums.s)


def _values_center(bank: Bank) -> jax.Array:
    """What the values, or the images in their place, are centred by."""
    return bank.center if bank.values_center is None else bank.values_center


class _Query(NamedTuple):
    """B queries.

    Attributes:
      y: [B, D] as it came; centered: [B, D], less the bank's center.
      sigma: [B, 1].
      labels: [B] or None.
      error: [B, 1], a bound on the rounding error of their GEMM logits.
    """

    y: jax.Array
    centered: jax.Array
    sigma: jax.Array
    labels: jax.Array | None
    error: jax.Array


def _query(bank: Bank, y: jax.Array, sigma: jax.Array, labels: jax.Array | None) -> _Query:
    centered = y - bank.center
    norm = jnp.sqrt(jnp.sum(centered**2, 1, keepdims=True))
    error = _GEMM_ERROR * bank.radius * (norm + bank.radius) / sigma**2
    return _Query(y, centered, sigma, labels, error)


def _blocks(bank: Bank) -> Any:
    """The scan's inputs: block number, images, log weights, half norms, labels, values."""
    divide = lambda a: a.reshape(-1, bank.block_size, *a.shape[1:])
    fields = (bank.images, bank.log_weights, bank.half_norms, bank.labels, bank.values)
    parts = jax.tree.map(divide, fields)
    return (jnp.arange(parts[0].shape[0]), *parts)


def _logits(bank: Bank, query: _Query, block: Any) -> tuple[jax.Array, jax.Array]:
    """GEMM logits [B, block] of one block, and its centred values [block, E]."""
    _, images, log_weights, half_norms, labels, values = block
    x = _pixels.to_model(images) - bank.center
    scores = (dot(query.centered, x.T) - half_norms[None]) / query.sigma**2
    logits = log_weights[None] + scores
    if query.labels is not None:
        wanted = query.labels[:, None]
        logits = jnp.where((wanted == labels[None]) | (wanted < 0), logits, -jnp.inf)
    return logits, x if values is None else _pixels.to_model(values) - bank.values_center


def _scan(bank: Bank, query: _Query, exclude: jax.Array | None) -> _Sums:
    """The streaming softmax over all blocks, without the images in `exclude` [B, K]."""
    rows = jnp.arange(query.y.shape[0])[:, None]

    def step(sums: _Sums, block: Any) -> tuple[_Sums, None]:
        logits, values = _logits(bank, query, block)
        if exclude is not None:
            place = exclude - block[0] * bank.block_size
            # A place before the block would count from its end; one behind it is dropped.
            place = jnp.where(place < 0, bank.block_size, place)
            logits = logits.at[rows, place].set(-jnp.inf, mode="drop")
        m = _larger(sums.m, _largest(logits))
        p, old = jnp.exp(logits - _finite(m)), jnp.exp(sums.m - _finite(m))
        s = sums.s * old + jnp.sum(p, 1, keepdims=True)
        return _Sums(m, s, sums.v * old + dot(p, values)), None

    zero = jnp.zeros_like(query.sigma)
    width = _values_center(bank).shape[1]
    empty = _Sums(zero - jnp.inf, zero, jnp.zeros((len(query.y), width), query.y.dtype))
    # Derivatives make a block's floats again instead of keeping all of them.
    return jax.lax.scan(jax.checkpoint(step), empty, _blocks(bank))[0]


@jax.custom_jvp
def _largest(logits: jax.Array) -> jax.Array:
    """The maximum of each row, [B, 1], with the derivative of one of those that reach it.

    jnp.max shares the derivative among all that are equal to the maximum, and divides by how many
    there are: a compiler that computes the logits again, rounded otherwise, finds none of them.
    """
    return jnp.max(logits, 1, keepdims=True)


@_largest.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    place = jnp.argmax(primals[0], 1, keepdims=True)
    return _largest(primals[0]), jnp.take_along_axis(tangents[0], place, 1)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The maximum of two, with the derivative of one of them."""
    return jnp.where(a >= b, a, b)


def _finite(m: jax.Array) -> jax.Array:
    """A maximum that can be subtracted: 0 where nothing was admitted yet."""
    return jnp.where(m == -jnp.inf, 0.0, m)


def _leaders(bank: Bank, query: _Query) -> tuple[jax.Array, jax.Array]:
    """The largest GEMM logits [B, K] of all images, and the images' numbers."""
    k = min(_CANDIDATES, bank.images.shape[0])

    def step(best: Any, block: Any) -> tuple[Any, None]:
        logits, _ = _logits(bank, query, block)
        here, place = jax.lax.top_k(logits, min(k, bank.block_size))
        values = jnp.concatenate([best[0], here], 1)
        numbers = jnp.concatenate([best[1], place + block[0] * bank.block_size], 1)
        values, chosen = jax.lax.top_k(values, k)
        return (values, jnp.take_along_axis(numbers, chosen, 1)), None

    # A number that no image has, so that a place never filled excludes nothing.
    none = jnp.full((query.y.shape[0], k), bank.images.shape[0])
    start = (jnp.full(none.shape, -jnp.inf, jnp.float32), none)
    return jax.lax.scan(jax.checkpoint(step), start, _blocks(bank))[0]


class _Refined(NamedTuple):
    """Sums in which the leaders' logits are exact, over this device's images.

    Attributes:
      sums: of all images.
      leaders: [B, K] numbers of the images taken out.
      coarse: [B, K] their GEMM logits, falling.
      exact: [B, K] their logits on the sums' scale.
    """

    sums: _Sums
    leaders: jax.Array
    coarse: jax.Array
    exact: jax.Array


def _refined(bank: Bank, query: _Query) -> _Refined:
    coarse, leaders = _leaders(bank, query)
    take = lambda a: jnp.take(a, leaders, axis=0, mode="clip")
    x, y, log_weights = (
        _pixels.to_model(take(bank.images)),
        query.y[:, None],
        take(bank.log_weights),
    )
    first = _first(bank, coarse, x)
    # |y - x_1|^2 - |y - x_k|^2 without cancellation: where two images agree the term is 0.
    difference = jnp.sum((x - first) * ((y - first) + (y - x)), 2)
    exact = log_weights + difference / (2 * query.sigma**2)
    exact = jnp.where(coarse == -jnp.inf, -jnp.inf, exact)
    m = _largest(exact)
    p = jnp.exp(exact - _finite(m))
    values = x if bank.values is None else _pixels.to_model(take(bank.values))
    centered = values - _values_center(bank)[None]
    top = _Sums(m, jnp.sum(p, 1, keepdims=True), einsum("bk,bkd->bd", p, centered))

    # GEMM logits leave out |y|^2, the exact ones |y - x_1|^2: a device's own first candidate shows
    # the shift.
    shift = jnp.where(coarse[:, :1] == -jnp.inf, 0.0, exact[:, :1] - _finite(coarse[:, :1]))
    num_images, m_of_all = bank.images.shape[0], m
    if bank.mesh is not None:
        num_images, m_of_all = num_images * bank.mesh.size, parallel.max_devices(m)
    rest_bound = coarse[:, -1:] + shift + 2 * query.error + math.log(num_images)

    def with_rest() -> _Sums:
        rest = _scan(bank, query, exclude=leaders)
        return _merge(top, rest._replace(m=rest.m + shift))

    counts = jnp.any(rest_bound > m_of_all + math.log(_NEGLIGIBLE))
    return _Refined(jax.lax.cond(counts, with_rest, lambda: top), leaders, coarse, exact)


def _first(bank: Bank, coarse: jax.Array, x: jax.Array) -> jax.Array:
    """The image [B, 1, D] of the largest GEMM logit, of all devices the same."""
    first = x[:, :1]
    if bank.mesh is None:
        return first
    device = jnp.argmax(parallel.gather_devices(coarse[:, 0]), 0)
    here = device[:, None, None] == parallel.axis_index()
    return parallel.sum_devices(jnp.where(here, first, 0.0))


def _merge(a: _Sums, b: _Sums) -> _Sums:
    """Two partial softmaxes as one."""
    m = _larger(a.m, b.m)
    scale_a, scale_b = jnp.exp(a.m - _finite(m)), jnp.exp(b.m - _finite(m))
    return _Sums(m, a.s * scale_a + b.s * scale_b, a.v * scale_a + b.v * scale_b)


def _merge_devices(bank: Bank, sums: _Sums) -> _Sums:
    """The devices' partial softmaxes as one; a device without an admitted image adds 0."""
    if bank.mesh is None:
        return sums
    m = parallel.max_devices(sums.m)
    scale = jnp.exp(sums.m - _finite(m))
    s, v = parallel.sum_devices((sums.s * scale, sums.v * scale))
    return _Sums(m, s, v)
