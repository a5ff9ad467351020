"""What new images are made of: pieces of training images, and of how many?

patch_sources: each tile of an image is given the training image whose tile at the same place
correlates best with it; a copy has one source, a mosaic several.
mosaic_consistency: the share of pixels that equal the centre of the training patch nearest to the
k x k window around them. A denoiser that sees k x k windows and is optimal among those makes
images in which nearly all do (Kamb & Ganguli 2025, theorem 4.1).
Both compare on [0, 1]; blocks of training images pass through the device, and nothing of size
samples x training images is held. Windows are divided over the devices of this process; where
tiles are compared the training tiles are (neighbors.py).
Sources: Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive
harmonic representations"; Kamb & Ganguli 2025, "An analytic theory of creativity in convolutional
diffusion models".
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from jdiff import _check, _exact, _pixels, parallel
from jdiff.metrics import inputs
from jdiff.metrics.distinct import distinct
from jdiff.metrics.draws import drawn
from jdiff.metrics.intervals import bootstrap_mean
from jdiff.metrics.measure import Measure
from jdiff.metrics.neighbors import nearest

FLAT = 2 / 255  # a tile whose values differ by no more is constant: two grey levels
ROWS = 4096  # images whose tiles are float64 at a time
PLACES = ("same", "any")
OUTPUTS, PATCHES, WINDOWS = 2**23, 2**22, 2**13  # bounds of what one step holds on a device
LEAST = 16  # windows of which the nearest is found in one pass


def patch_sources(
    generated: Any,
    train: Any,
    held_out: Any,
    side: int | None = None,
    *,
    seed: int = 0,
) -> Measure:
    """From how many training images the tiles of an image come, on average.

    The training image with the most correlated tile at the same place is a tile's source (see
    `tile_sources`). Small tiles fit many images equally well, so a copy can have more than one
    source; the control says how many real images have that were not trained on.

    Args:
      generated: n >= 2 images, uint8 or unclipped model units.
      train: training images, uint8 or model units in [-1, 1].
      held_out: at least 2 real images that were not trained on, for the control.
      side: of a tile in pixels, from 2 to min(H, W); None takes H // 4, or 2.
      seed: of the bootstrap.

    Returns:
      Measure of the mean number of distinct sources of an image, with bootstrap intervals over
      images that have a source; `per_sample` holds each image's number, 0 if it has none. The
      constants hold, for both sets, the mean entropy of an image's sources (nats), the share of
      images with one single source, of tiles left out (constant), and the number of images left
      out, all of whose tiles are.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on features, shapes that differ, non-finite values, a side out of range, or fewer
        than two images with a source.

    References:
      Kadkhodaie et al. 2024, section 2.
    """
    given = inputs.check(generated, train, held_out)
    size = _side(given.train, side)
    summary = lambda name, images: _sources(name, tile_sources(images, given.train, size), seed)
    value, interval, details, counts = summary("generated", given.generated)
    control, control_interval, control_details, _ = summary("held_out", given.held_out)
    rows, columns = (len(tile_starts(length, size)) for length in given.train.shape[1:3])
    constants = {
        "side": size,
        "tiles": rows * columns,
        **details,
        **{f"control_{name}": detail for name, detail in control_details.items()},
        "num_train": len(given.train),
        "seed": seed,
    }
    n = int(np.sum(counts > 0))
    return Measure(
        "patch_sources",
        value,
        interval,
        control,
        control_interval,
        n,
        "pixels",
        constants,
        counts.astype(np.float64),
    )


def tile_sources(generated: Any, train: Any, side: int | None = None) -> np.ndarray:
    """Which training image each tile of each image comes from.

    Tiles lie on the grid of `tile_starts`. A source is the training image whose tile at the same
    place has the largest Pearson correlation over all values and channels; of several equal ones
    the first. Correlations are those of tiles centred and scaled in float64 and kept as float32,
    whose nearest neighbour is found exactly: |a - b|^2 = 2 - 2 r.

    Args:
      generated: n images, uint8 or unclipped model units.
      train: N training images, uint8 or model units in [-1, 1].
      side: of a tile in pixels, from 2 to min(H, W); None takes H // 4, or 2.

    Returns:
      int [n, rows, columns]: indices into `train`, and -1 for tiles that have no source: those
      whose values differ by no more than two of 255 grey levels (constant, but for noise), and
      those at a place where all training tiles are so.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on features, shapes that differ, non-finite values or a side out of range.

    Example:
      >>> ramp = np.arange(8.0).reshape(1, 1, 8, 1).repeat(8, 1) / 8
      >>> tile_sources(ramp / 2, np.concatenate([-(ramp**2), ramp]), side=4).tolist()
      [[[1, 1], [1, 1]]]
    """
    train, generated = inputs.real("train", train), inputs.samples("generated", generated)
    inputs.same_shape("train", train, generated=generated)
    side = _side(train, side)
    starts = [tile_starts(length, side) for length in train.shape[1:3]]
    sources = np.full((len(generated), *(len(along) for along in starts)), -1)
    for (r, i), (c, j) in itertools.product(*map(enumerate, starts)):
        tile = np.s_[:, i : i + side, j : j + side]
        (a, varies), (b, usable) = _normalised(generated[tile]), _normalised(train[tile])
        usable = np.flatnonzero(usable)
        if not np.any(varies) or not len(usable):
            continue
        # Equal tiles are common (two of small ones differ by contrast alone), and the list of the
        # nearest would have to hold them all.
        among = usable[distinct(b[usable])]
        # Constant tiles are asked as some other: what is compiled depends on the number asked. As
        # they are they would be equally far from everything, which takes longest.
        a[~varies] = a[np.argmax(varies)]
        found = nearest(a, b, 1, among=among).indices[:, 0]
        sources[:, r, c] = np.where(varies, found, -1)
    return sources


def tile_starts(length: int, side: int) -> list[int]:
    """First pixels of tiles along one axis: every `side`, and a last tile that ends at the edge.

    Where the side does not divide the length the last tile overlaps its neighbour, so that every
    pixel is in a tile and all tiles are alike.

    Example:
      >>> tile_starts(8, 4), tile_starts(10, 4)
      ([0, 4], [0, 4, 6])
    """
    starts = list(range(0, length - side + 1, side))
    return starts if starts[-1] + side == length else [*starts, length - side]


def mosaic_consistency(
    generated: Any,
    train: Any,
    held_out: Any,
    patch_size: int = 3,
    *,
    place: str = "same",
    eps: float = 2 / 255,
    seed: int = 0,
    block_size: int | None = None,
) -> Measure:
    """The share of pixels within eps of the centre of the training patch nearest to their window.

    The window of a pixel is k x k and cut off at the border. It is compared (Euclidean, on [0, 1])
    with the training windows around the same pixel, or around any pixel whose window is cut off
    alike: an inner window with all inner ones, one at the upper border with those at the upper
    border. Of equally near windows the first counts, by image, then row, then column. Squared
    distances come from float32 products. Between uint8 images they are exact, for windows of up to
    340 values; else right to about 1e-7 times the window's values, so that rounding decides
    between windows as equally near as that.

    Args:
      generated: n >= 2 images, uint8 or unclipped model units.
      train: training images, uint8 or model units in [-1, 1].
      held_out: at least 2 real images that were not trained on; the first n are the control.
      patch_size: k, odd, from 1 to 2 max(H, W) - 1, where a window holds the whole image.
      place: "same", or "any": H * W times the work.
      eps: the largest difference on [0, 1], of every channel, that still agrees (1e-6 more is
        allowed for rounding).
      seed: of the bootstrap.
      block_size: training images a step, or None to choose; the answer does not depend on it.

    Returns:
      Measure with bootstrap intervals over images; `per_sample` holds each image's share.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on features, shapes that differ, non-finite values, a patch size even or out of
        bounds, another place, or an eps that is not in (0, 1).

    References:
      Kamb & Ganguli 2025, theorem 4.1.
    """
    given = inputs.check(generated, train, held_out)
    _pictures(given.train)
    inputs.at_least(2, generated=given.generated, held_out=given.held_out)
    k = _check.odd("patch_size", patch_size, 2 * max(given.train.shape[1:3]) - 1)
    place = _check.choice("place", place, PLACES)
    eps = _check.number("eps", eps, above=0, below=1)
    n = len(given.generated)

    def shares(images: np.ndarray) -> np.ndarray:
        centres = _nearest_centres(images, given.train, k, place == "any", block_size)
        agrees = np.abs(_pixels.to_unit(images) - centres).max(axis=-1) <= eps + 1e-6
        return agrees.mean(axis=(1, 2))

    values, control = (
        shares(given.generated),
        shares(given.held_out[np.sort(drawn(given.held_out, min(n, len(given.held_out))))]),
    )
    return Measure(
        "mosaic_consistency",
        float(values.mean()),
        bootstrap_mean(values, seed),
        float(control.mean()),
        bootstrap_mean(control, seed),
        n,
        "pixels",
        {
            "patch_size": k,
            "place": place,
            "eps": eps,
            "num_train": len(given.train),
            "num_held_out": len(control),
            "seed": seed,
        },
        values,
    )


# Tiles.


def _pictures(train: np.ndarray) -> None:
    if train.ndim != 4:
        raise ValueError(
            f"train must be images [n, height, width, channels]; got shape {train.shape}."
        )


def _side(train: np.ndarray, side: int | None) -> int:
    _pictures(train)
    height, width = train.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(f"train must be images of at least 2 x 2 pixels; got {height} x {width}.")
    if side is None:
        return min(max(2, height // 4), width)
    return _check.integer("side", side, minimum=2, maximum=min(height, width))


def _normalised(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tiles [n, s, s, C] as rows of mean 0 and length 1, float32, and which are not constant."""
    rows = tiles.reshape(len(tiles), -1)
    found = np.zeros(rows.shape, np.float32)
    varies = np.zeros(len(rows), bool)
    full = 255 if rows.dtype == np.uint8 else 2  # black to white, as the values are stored
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        # float64, so that tiles that differ by contrast alone become the same float32 row.
        x = rows[part].astype(np.float64)
        varies[part] = np.ptp(x, axis=1) > FLAT * full
        x -= x.mean(axis=1, keepdims=True)
        size = np.linalg.norm(x, axis=1, keepdims=True)
        found[part] = np.divide(x, size, out=np.zeros_like(x), where=varies[part, None])
    return found, varies


def _sources(
    name: str, sources: np.ndarray, seed: int
) -> tuple[float, tuple[float, float], dict[str, Any], np.ndarray]:
    """Mean number of sources, its interval, what else is told, and every image's number."""
    sources = sources.reshape(len(sources), -1)
    counts, entropies = np.zeros(len(sources), int), np.zeros(len(sources))
    for i, image in enumerate(sources):
        _, times = np.unique(image[image >= 0], return_counts=True)
        p = times / max(1, times.sum())
        counts[i], entropies[i] = len(times), -np.sum(p * np.log(p))
    has = counts > 0
    if has.sum() < 2:
        raise ValueError(
            f"{name} must hold at least 2 images with a tile that is not constant, where training "
            f"tiles are not either; got {int(has.sum())} of {len(has)}."
        )
    details = {
        "entropy": float(entropies[has].mean()),
        "single_source": float(np.mean(counts[has] == 1)),
        "tiles_left_out": float(np.mean(sources < 0)),
        "images_left_out": int(np.sum(~has)),
    }
    return float(counts[has].mean()), bootstrap_mean(counts[has], seed), details, counts


# Windows.


def _nearest_centres(
    images: np.ndarray, train: np.ndarray, k: int, anywhere: bool, block_size: int | None
) -> np.ndarray:
    """The centre, on [0, 1], of the training window nearest to each window, [n, H, W, C]."""
    n, height, width, channels = images.shape
    values = k * k * channels
    per_image = WINDOWS if anywhere else PATCHES // values
    default = max(1, per_image // (height * width))
    block = default if block_size is None else _check.integer("block_size", block_size)
    block = min(block, len(train))
    mesh = parallel.row_devices()
    references = parallel.everywhere(train, mesh)
    centres = np.empty(images.shape, np.float32)
    everything = [(0, height)], [(0, width)]
    runs = (_runs(height, k), _runs(width, k)) if anywhere else everything
    for (i, h), (j, w) in itertools.product(*runs):
        # [groups, images or images * places, values]: every group is searched for itself.
        shape = {"k": k, "size": (h, w), "anywhere": anywhere}
        groups, each = (1, h * w) if anywhere else (h * w, 1)
        most = max(1, OUTPUTS // (block * each))  # one group's distances at a time
        rows = parallel.rows_a_call(n * each, most, mesh)
        step = max(1, rows // each)
        corner = np.array([i, j], np.int32)
        for start in range(0, n, step):
            # The last step takes the last images again: one shape, one compilation.
            chosen = np.minimum(np.arange(start, start + step), n - 1)
            windows = _windows(jnp.asarray(images[chosen]), corner, **shape)
            found = []
            for first in range(0, windows.shape[1], rows):
                part = windows[:, first : first + rows]
                pad = rows - part.shape[1]
                part = jnp.pad(part, ((0, 0), (0, pad), (0, 0)))
                centre = _search(part, references, corner, block=block, mesh=mesh, **shape)
                found.append(np.asarray(centre)[:, : rows - pad])
            found = np.concatenate(found, axis=1)
            if not anywhere:
                found = found.swapaxes(0, 1)
            found = found.reshape(step, h, w, channels)[: n - start]
            centres[start : start + step, i : i + h, j : j + w] = found
    return centres


def _runs(length: int, k: int) -> list[tuple[int, int]]:
    """Runs of pixels along one axis whose windows are cut off alike: (first, how many)."""
    cut = [(min(i, k // 2), min(length - 1 - i, k // 2)) for i in range(length)]
    runs = [list(run) for _, run in itertools.groupby(range(length), lambda i: cut[i])]
    return [(run[0], len(run)) for run in runs]


@functools.partial(jax.jit, static_argnames=("k", "size", "anywhere"))
def _windows(
    images: jax.Array, corner: jax.Array, *, k: int, size: tuple[int, int], anywhere: bool
) -> jax.Array:
    """The k x k windows around a rectangle of pixels: grey levels about 128, 0 outside the image.

    Returns [1, B * places, K], or [places, B, K] if places are searched one by one; K = k * k * C.
    """
    # Whole numbers of at most 128, where images are uint8: sums of 3 K products are exact below
    # 2^24, and equally near windows, of which data of few levels have many, really are equal.
    whole = images.dtype == jnp.uint8
    x = (images.astype(jnp.float32) if whole else 255 * _pixels.to_unit(images)) - 128
    num, _, _, channels = x.shape
    x = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    # A pixel's window starts where the pixel stands: the padding moved it there.
    rows, columns = (np.arange(n)[:, None] + np.arange(k) for n in size)
    x = jnp.take(x, corner[0] + rows, axis=1)  # [B, h, k, W + k - 1, C]
    windows = jnp.moveaxis(jnp.take(x, corner[1] + columns, axis=3), 2, 3)  # [B, h, w, k, k, C]
    if anywhere:
        return windows.reshape(1, -1, k * k * channels)
    return windows.reshape(num, -1, k * k * channels).swapaxes(0, 1)


@functools.partial(jax.jit, static_argnames=("block", "k", "size", "anywhere", "mesh"))
def _search(
    windows: jax.Array,
    train: jax.Array,
    corner: jax.Array,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    **options: Any,
) -> jax.Array:
    """The centres [G, Q, C] of the training windows nearest to windows [G, Q, K].

    Of every group the windows are divided over the devices of `mesh`, if it is given.
    """
    each = functools.partial(_centres, **options)
    in_specs = (parallel.SPLIT_SECOND, parallel.WHOLE, parallel.WHOLE)
    program = parallel.map_shards(each, mesh, in_specs, parallel.SPLIT_SECOND)
    return program(windows, train, corner)


def _centres(
    windows: jax.Array,
    train: jax.Array,
    corner: jax.Array,
    *,
    block: int,
    k: int,
    size: tuple[int, int],
    anywhere: bool,
) -> jax.Array:
    """What `_search` finds, of the windows of one device."""
    num, _, _, channels = train.shape
    middle = slice(k * k // 2 * channels, (k * k // 2 + 1) * channels)
    options = {"k": k, "size": size, "anywhere": anywhere}

    def step(best: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[Any, None]:
        images = jax.lax.dynamic_slice_in_dim(train, start, block)
        # Without the barrier the windows may be cut again for every tile of the product.
        others = jax.lax.optimization_barrier(_windows(images, corner, **options))
        # A product of matrices a group: on a CPU twenty times as fast as one of batches.
        least, near = jax.lax.map(lambda group: _least(*group), (windows, others))
        nearer = least < best[0]  # of equally near ones the first stays
        return (
            jnp.where(nearer, least, best[0]),
            jnp.where(nearer, near[..., middle], best[1]),
        ), None

    groups, rows, _ = windows.shape
    start = (
        jnp.full((groups, rows, 1), jnp.inf, jnp.float32),
        jnp.zeros((groups, rows, channels), jnp.float32),
    )
    # The last block ends with the last image and overlaps its neighbour, which changes nothing.
    blocks = np.minimum(np.arange(0, num, block), num - block).astype(np.int32)
    return (jax.lax.scan(step, start, jnp.asarray(blocks))[0][1] + 128) / 255


def _least(windows: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest of others [M, K] to each window [Q, K]: |o|^2 - 2 w.o [Q, 1], and itself [Q, K].

    The least of every `LEAST` rows first, which reads the products once, and then which it was.
    """
    rows = jnp.pad(others, ((0, -len(others) % LEAST), (0, 0)))
    real = jnp.arange(len(rows)) < len(others)
    squares = jnp.where(real, jnp.sum(rows * rows, axis=1), jnp.inf)
    value = squares[:, None] - 2 * _exact.einsum("mk,qk->mq", rows, windows)
    among = jnp.argmin(jnp.min(value.reshape(-1, LEAST, len(windows)), axis=1), axis=0)
    few = jnp.take(rows.reshape(-1, LEAST, rows.shape[1]), among, axis=0)  # [Q, LEAST, K]
    their = jnp.take(squares.reshape(-1, LEAST), among, axis=0)
    value = their - 2 * _exact.einsum("qk,qmk->qm", windows, few)
    at = jnp.argmin(value, axis=1)[:, None]
    least = jnp.take_along_axis(value, at, axis=1)
    return least, jnp.take_along_axis(few, at[..., None], axis=1)[:, 0]
