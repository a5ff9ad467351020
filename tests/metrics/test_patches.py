import itertools
from collections.abc import Callable

import jax
import numpy as np
import pytest

from jdiff.metrics import patches
from jdiff.metrics.patches import mosaic_consistency, patch_sources, tile_sources, tile_starts


def unit(x: np.ndarray) -> np.ndarray:
    return x / 255 if x.dtype == np.uint8 else (x.astype(np.float64) + 1) / 2


def smooth(rng: np.random.Generator, n: int, height: int, width: int, channels: int) -> np.ndarray:
    """uint8 images whose neighbouring pixels are alike."""
    coarse = rng.integers(0, 256, (n, -(-height // 2), -(-width // 2), channels))
    fine = coarse.repeat(2, 1).repeat(2, 2)[:, :height, :width]
    return np.clip(fine + rng.integers(-20, 21, fine.shape), 0, 255).astype(np.uint8)


def correlations(generated: np.ndarray, train: np.ndarray, i: int, j: int, side: int) -> np.ndarray:
    """Pearson's r of the tiles at (i, j), by numpy, [n, N]; -2 of constant training tiles."""
    a, b = (unit(x)[:, i : i + side, j : j + side].reshape(len(x), -1) for x in (generated, train))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.array([[np.corrcoef(x, y)[0, 1] for y in b] for x in a])
    r[:, np.ptp(b, axis=1) <= 2 / 255] = -2
    return r


# Tiles.


@pytest.mark.core
@pytest.mark.parametrize(
    ("shape", "side", "starts"),
    [
        ((8, 8, 1), None, ([0, 2, 4, 6], [0, 2, 4, 6])),
        ((7, 10, 3), 3, ([0, 3, 4], [0, 3, 6, 7])),
        ((6, 5, 2), 5, ([0, 1], [0])),
    ],
)
def test_sources_are_those_of_a_brute_force(shape, side, starts, rng):
    train = smooth(rng, 40, *shape)
    generated = (smooth(rng, 15, *shape) / 127.5 - 1 + rng.normal(0, 0.1, (15, *shape))) * 1.2
    found = tile_sources(generated, train, side)
    size = side or 2
    assert found.shape == (15, *map(len, starts))
    for r, c in itertools.product(*(range(len(along)) for along in starts)):
        expected = correlations(generated, train, starts[0][r], starts[1][c], size)
        np.testing.assert_array_equal(found[:, r, c], np.argmax(expected, axis=1))


@pytest.mark.parametrize("side", [2, 4])
def test_of_equally_good_sources_the_first_counts(side, digits):
    train, held_out = digits[0][:300], digits[1][:20]
    found = tile_sources(held_out, train, side)
    ties = 0
    for r, c in np.ndindex(*found.shape[1:]):
        i, j = r * side, c * side
        expected = correlations(held_out, train, i, j, side)
        # numpy's own rounding separates equal ones by 1e-15.
        best = expected > expected.max(axis=1, keepdims=True) - 1e-12
        constant = np.ptp(unit(held_out)[:, i : i + side, j : j + side], axis=(1, 2, 3)) <= 2 / 255
        first = np.where(constant, -1, np.argmax(best, axis=1))
        np.testing.assert_array_equal(found[:, r, c], first)
        ties += np.sum(best[~constant].sum(axis=1) > 1)
    # Of small tiles with one dark pixel any two correlate perfectly.
    assert ties > 20 if side == 2 else ties < 20


def test_mosaics_have_the_sources_they_were_cut_from(rng):
    train = smooth(rng, 30, 8, 8, 1)
    which = rng.integers(0, 30, (12, 2, 2))
    cut = np.array([[[train[k] for k in row] for row in image] for image in which])
    mosaics = np.zeros((12, 8, 8, 1), np.uint8)
    for r, c in np.ndindex(2, 2):
        tile = np.s_[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
        mosaics[tile] = cut[:, r, c][tile]
    np.testing.assert_array_equal(tile_sources(mosaics, train, 4), which)
    found = patch_sources(mosaics, train, smooth(rng, 5, 8, 8, 1), 4)
    counts = [len(np.unique(image)) for image in which]
    np.testing.assert_array_equal(np.asarray(found.per_sample), counts)
    assert found.value == np.mean(counts)
    times = [np.unique(image, return_counts=True)[1] / 4 for image in which]
    entropy = np.mean([-np.sum(p * np.log(p)) for p in times])
    assert found.constants["entropy"] == pytest.approx(entropy, rel=1e-12)
    assert found.constants["single_source"] == np.mean(np.array(counts) == 1)


@pytest.mark.core
def test_copies_have_one_source_whatever_their_level_and_contrast(rng):
    train = smooth(rng, 30, 8, 8, 3)
    copies = (train[:10] / 127.5 - 1) * rng.uniform(0.3, 2, (10, 1, 1, 1)) + 0.3
    found = patch_sources(copies, train, smooth(rng, 10, 8, 8, 3), 4)
    assert found.value == 1
    assert found.interval == (1, 1)
    assert found.constants["entropy"] == 0
    assert found.constants["single_source"] == 1
    assert found.control is not None
    assert 2 < found.control <= 4  # strangers are mosaics
    assert found.constants["control_entropy"] > 0.5


def test_repeats_count_as_the_first(rng):
    train = smooth(rng, 10, 8, 8, 1)
    train = np.concatenate([train, train[::-1]])
    np.testing.assert_array_equal(tile_sources(train, train, 4)[10:, 0, 0], np.arange(10)[::-1])


def test_constant_tiles_are_left_out_and_counted(rng):
    train, held_out = smooth(rng, 20, 8, 8, 1), smooth(rng, 6, 8, 8, 1)
    train[3, :4, :4], generated = 200, smooth(rng, 5, 8, 8, 1)
    generated[0, :4] = 7
    generated[0, 0, 0] = 9  # two grey levels are constant, three are not
    generated[1, :4, :4] = 7
    generated[1, 0, 0] = 10
    generated[2] = 100
    sources = tile_sources(generated, train, 4)
    np.testing.assert_array_equal(sources[0] == -1, [[True, True], [False, False]])
    assert np.all(sources[1] >= 0)
    assert np.all(sources[2] == -1)
    assert not np.any(sources[:, 0, 0] == 3)
    found = patch_sources(generated, train, held_out, 4)
    assert found.constants["tiles_left_out"] == 6 / 20
    assert found.constants["images_left_out"] == 1
    assert found.n == 4
    assert np.asarray(found.per_sample)[2] == 0
    assert found.constants["control_tiles_left_out"] == 0
    train[:, :4, :4] = 3  # no training tile to come from
    assert np.all(tile_sources(held_out, train, 4)[:, 0, 0] == -1)


def test_order_of_images_does_not_matter_to_sources(rng):
    train, generated = smooth(rng, 50, 6, 6, 1), smooth(rng, 20, 6, 6, 1)
    p, s = rng.permutation(20), rng.permutation(50)
    found = tile_sources(generated, train, 3)
    np.testing.assert_array_equal(s[tile_sources(generated[p], train[s], 3)], found[p])


def test_tiles_cover_every_pixel():
    for length, side in itertools.product(range(2, 20), range(2, 9)):
        if side <= length:
            starts = tile_starts(length, side)
            covered = {i for start in starts for i in range(start, start + side)}
            assert covered == set(range(length))
            assert len(starts) == -(-length // side)


# Windows.


def brute_force(
    images: np.ndarray, train: np.ndarray, k: int, place: str, values: Callable = unit
) -> np.ndarray:
    """The centre of the nearest training window [n, H, W, C], float64, first of equal ones."""
    x, t = values(images), values(train)
    height, width = x.shape[1:3]
    ends = lambda p, size: (min(p, k // 2), min(size - 1 - p, k // 2))
    cut = lambda i, j: (ends(i, height), ends(j, width))

    def window(image: np.ndarray, i: int, j: int) -> np.ndarray:
        (up, down), (left, right) = cut(i, j)
        return image[i - up : i + down + 1, j - left : j + right + 1]

    centres = np.zeros(x.shape)
    places = list(np.ndindex(height, width))
    for n, (i, j) in itertools.product(range(len(x)), places):
        allowed = [(i, j)] if place == "same" else [p for p in places if cut(*p) == cut(i, j)]
        own, best = window(x[n], i, j), np.inf
        for image in t:
            for a, b in allowed:
                square = np.square(window(image, a, b) - own).sum()
                if square < best:
                    best, centres[n, i, j] = square, image[a, b]
    return centres


@pytest.mark.core
@pytest.mark.parametrize("place", ["same", "any"])
@pytest.mark.parametrize("k", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(5, 6, 1), (4, 4, 2)], ids=["grey", "colour"])
def test_centres_are_those_of_a_brute_force(place, k, shape, rng):
    if k > 2 * max(shape[:2]) - 1:
        k = 2 * max(shape[:2]) - 1
    train = smooth(rng, 7, *shape)
    generated = (smooth(rng, 4, *shape) / 127.5 - 1 + rng.normal(0, 0.1, (4, *shape))) * 1.1
    expected = brute_force(generated, train, k, place)
    found = patches._nearest_centres(generated.astype("f4"), train, k, place == "any", None)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # An eps in a gap of the differences, so that rounding decides nothing.
    differences = np.abs(unit(generated) - expected).max(axis=-1)
    eps = float(np.sort(differences.ravel())[differences.size // 2 :][:2].mean())
    measured = mosaic_consistency(generated, train, train, k, place=place, eps=eps)
    np.testing.assert_array_equal(
        np.asarray(measured.per_sample), (differences <= eps).mean(axis=(1, 2))
    )
    assert 0 < measured.value < 1


@pytest.mark.parametrize("place", ["same", "any"])
def test_of_equally_near_windows_the_first_counts(place, rng):
    # Three levels: most windows have several that are equally near and not equal.
    sizes = (60, 9) if place == "same" else (12, 6)
    train, images = (rng.choice([0, 7, 255], (n, 6, 6, 1)).astype(np.uint8) for n in sizes)
    expected = brute_force(images, train, 3, place, values=lambda x: x.astype(int))

    def levels(x: np.ndarray, size: int | None) -> np.ndarray:
        return np.rint(255 * patches._nearest_centres(x, train, 3, place == "any", size))

    for size in (None, 1, 7):
        np.testing.assert_array_equal(levels(images, size), expected)
    # What a device of several would be asked.
    np.testing.assert_array_equal(levels(images[4:6], None), expected[4:6])
    if place == "same":
        backwards = brute_force(images, train[::-1], 3, place, values=lambda x: x.astype(int))
        assert np.mean(backwards != expected) > 0.05


@pytest.mark.parametrize("place", ["same", "any"])
def test_copies_are_consistent(place, rng):
    train = smooth(rng, 12, 8, 8, 1)
    found = mosaic_consistency(train[:6], train, smooth(rng, 6, 8, 8, 1), place=place)
    assert found.value == 1
    assert found.interval == (1, 1)
    assert found.control is not None
    assert found.control < 0.7
    shifted = np.roll(train[:6], 2, axis=2)  # pieces of training images at other places
    inner = mosaic_consistency(shifted, train, train, place=place).per_sample
    # 24 whole windows: rows 1 to 6, and columns 3 to 6, where they hold neither seam nor border.
    if place == "any":
        assert np.all(np.asarray(inner) >= 24 / 64)
    else:
        assert np.all(np.asarray(inner) < 24 / 64)


def test_eps_is_an_inclusive_number_of_grey_levels(rng):
    train = smooth(rng, 2, 8, 8, 1) // 2
    for levels, share in ((2, 1.0), (3, 0.0)):
        moved = mosaic_consistency(train + np.uint8(levels), train, train, 15)
        assert moved.value == share
    assert mosaic_consistency(train + np.uint8(3), train, train, 15, eps=3 / 255).value == 1


def test_a_colour_agrees_only_if_every_channel_does(rng):
    train = smooth(rng, 2, 4, 4, 3) // 2
    moved = train.copy()
    moved[..., 1] += 3
    assert mosaic_consistency(moved, train, train, 7).value == 0


@pytest.mark.parametrize("place", ["same", "any"])
def test_block_size_does_not_matter(place, rng, monkeypatch):
    train, generated = smooth(rng, 23, 6, 7, 1), smooth(rng, 11, 6, 7, 1)
    seen = []
    search = patches._search

    def spy(windows, references, corner, **static):
        jaxpr = jax.make_jaxpr(lambda *a: search(*a, **static))(windows, references, corner)
        scans = [e for e in inner(jaxpr.jaxpr) if e.primitive.name == "scan"]
        seen.append((windows.shape[1], scans[0].params["length"]))
        return search(windows, references, corner, **static)

    def inner(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for value in equation.params.values():
                nested = getattr(value, "jaxpr", value)
                if hasattr(nested, "eqns"):
                    yield from inner(nested)

    monkeypatch.setattr(patches, "_search", spy)
    centres = lambda size: patches._nearest_centres(generated, train, 3, place == "any", size)
    expected = centres(None)
    assert {length for _, length in seen} == {1}
    for size, length in ((1, 23), (5, 5), (23, 1), (99, 1)):
        seen.clear()
        np.testing.assert_array_equal(centres(size), expected)
        assert {found for _, found in seen} == {length}
    # Few samples a step.
    monkeypatch.setattr(patches, "OUTPUTS", (42 if place == "any" else 1) * 7 * 5)
    before = len(seen)
    seen.clear()
    np.testing.assert_array_equal(centres(5), expected)
    assert len(seen) > before
    assert max(rows for rows, _ in seen) == (55 if place == "any" else 7)


# Both.

DIGITS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
FLAT = np.ones((5, 4))
BLANK = np.full((6, 8, 8, 1), 9, np.uint8)


@pytest.mark.parametrize("measure", [patch_sources, mosaic_consistency])
def test_held_out_images_are_their_own_control(measure, digits):
    train, held_out = digits
    found = measure(held_out[:40], train[:200], held_out[:40])
    assert found.value == found.control
    assert found.interval == found.control_interval
    assert found.name == measure.__name__
    assert (found.n, found.features) == (40, "pixels")
    assert found.interval[0] < found.value < found.interval[1]
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: patch_sources(DIGITS, DIGITS, DIGITS, 1), "side must be from 2 to 8; got 1"),
        (lambda: patch_sources(DIGITS, DIGITS, DIGITS, 9), "side must be from 2 to 8; got 9"),
        (lambda: patch_sources(BLANK, DIGITS, DIGITS), "generated must hold at least 2 .* 0 of 6"),
        (lambda: patch_sources(DIGITS, DIGITS, BLANK), "held_out must hold at least 2 .* 0 of 6"),
        (lambda: patch_sources(DIGITS, BLANK, DIGITS), "generated must hold at least 2"),
        (lambda: patch_sources(DIGITS[:1], DIGITS, DIGITS), "generated must hold .* got 1 of 1"),
        (lambda: patch_sources(FLAT, FLAT, FLAT), "train must be images"),
        (lambda: tile_sources(FLAT, FLAT), "train must be images"),
        (lambda: tile_sources(DIGITS[:, :4], DIGITS), "generated must have the trailing shape"),
        (lambda: tile_sources(DIGITS[:, :1], DIGITS[:, :1]), "at least 2 x 2 pixels; got 1 x 8"),
        (lambda: mosaic_consistency(FLAT, FLAT, FLAT), "train must be images"),
        (lambda: mosaic_consistency(DIGITS, DIGITS, DIGITS, 4), "patch_size must be odd"),
        (lambda: mosaic_consistency(DIGITS, DIGITS, DIGITS, 17), "patch_size must be from 1 to 15"),
        (lambda: mosaic_consistency(DIGITS, DIGITS, DIGITS, place="an"), "Did you mean 'any'"),
        (lambda: mosaic_consistency(DIGITS, DIGITS, DIGITS, eps=0.0), "eps must be in"),
        (lambda: mosaic_consistency(DIGITS[:1], DIGITS, DIGITS), "generated must hold at least 2"),
        (lambda: mosaic_consistency(DIGITS, DIGITS, DIGITS[:1]), "held_out must hold at least 2"),
        (lambda: mosaic_consistency(DIGITS * np.nan, DIGITS, DIGITS), "generated must be finite"),
    ],
)
def test_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()
