import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hard_points import CASES, brute_force, features

from jdiff.metrics import balls
from jdiff.metrics.balls import in_balls


def whole(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, with repeats: every sum is exact, and every distance met many times."""
    references = rng.integers(-2, 3, (300, 4)).astype(np.float64)
    return references[rng.permutation(300)[:80]], references


def some_radii(d: np.ndarray, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """About 1 in 20 inside. The sphere goes through a point, or close by where sums round."""
    columns, rows = np.sort(d, axis=0), np.sort(d, axis=1)
    i, j = len(d) // 20, d.shape[1] // 20
    if exact:
        return columns[i], rows[:, j]
    return columns[i] * (1 + 1e-12), rows[:, j] * (1 + 1e-12)


@pytest.mark.parametrize("case", [*CASES, whole], ids=lambda case: case.__name__)
@pytest.mark.parametrize("parts", [1, 7])
def test_in_balls_is_a_float64_brute_force(case, parts, rng):
    queries, references = case(rng)
    d = brute_force(queries, references)
    radii, query_radii = some_radii(d, exact=case is whole)
    found = in_balls(queries, references, radii=radii, query_radii=query_radii, num_parts=parts)
    inside, around = d <= radii, d <= query_radii[:, None]
    np.testing.assert_array_equal(found.inside, inside.sum(axis=1))
    part = [i * parts // len(d) for i in range(len(d))]
    for p in range(parts):
        np.testing.assert_array_equal(found.hit[p], inside[np.equal(part, p)].any(axis=0))
        np.testing.assert_array_equal(found.reached[p], around[np.equal(part, p)].any(axis=0))
    assert 0 < inside.sum() < inside.size
    assert 0 < around.sum() < around.size


@pytest.mark.core
def test_only_the_balls_given_count(rng):
    queries, references = features(rng)
    d = brute_force(queries, references)
    radii, query_radii = np.full(900, 5.5), np.full(70, 4.5)
    both = in_balls(queries, references, radii=radii, query_radii=query_radii)
    one = in_balls(queries, references, radii=radii)
    other = in_balls(queries, references, query_radii=query_radii)
    np.testing.assert_array_equal(one.hit, both.hit)
    np.testing.assert_array_equal(one.inside, (d <= 5.5).sum(axis=1))
    np.testing.assert_array_equal(other.reached, both.reached)
    assert not one.reached.any()
    assert not other.hit.any()
    assert not other.inside.any()
    assert 0 < both.hit.sum() < 900
    assert 0 < both.reached.sum() < 900


def test_on_the_sphere_is_inside_and_a_hair_less_is_not():
    # 3-4-5 triangles among whole numbers; a radius of 0 holds the point itself.
    references = np.arange(60.0)[:, None] * 100 + np.zeros((1, 2))
    queries = references + np.array([[3.0, 4.0]])
    less = np.nextafter(5.0, 0)
    on, off = (in_balls(queries, references, radii=np.full(60, r)) for r in (5.0, less))
    assert on.hit.all()
    assert not off.hit.any()
    on, off = (in_balls(queries, references, query_radii=np.full(60, r)) for r in (5.0, less))
    assert on.reached.all()
    assert not off.reached.any()
    same = in_balls(references, references, radii=np.zeros(60), query_radii=np.zeros(60))
    np.testing.assert_array_equal(same.inside, 1)
    assert same.reached.all()


@pytest.fixture
def tiles(monkeypatch) -> list[tuple[int, int]]:
    """(rows, columns) of every tile the device is asked for."""
    kernel, seen = balls._tile, []

    def spy(*args, **static):
        found = kernel(*args, **static)
        seen.append(found.shape)
        return found

    monkeypatch.setattr(balls, "_tile", spy)
    return seen


def test_tiles_do_not_matter(tiles, monkeypatch, rng):
    queries, references = whole(rng)
    radii, query_radii = some_radii(brute_force(queries, references), exact=True)
    found = []
    for rows, columns in ((80, 300), (80, 64), (33, 64), (1024, 5000)):
        monkeypatch.setattr(balls, "QUERIES", rows)
        tiles.clear()
        found.append(
            in_balls(
                queries, references, radii=radii, query_radii=query_radii, num_parts=10,
                block_size=columns,
            )
        )  # fmt: skip
        # The varied thing really varied.
        expected = -(-80 // rows) * -(-300 // columns)
        assert tiles == [(min(80, rows), min(300, columns))] * expected
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_order_does_not_matter(rng):
    queries, references = features(rng)
    radii, query_radii = rng.uniform(4, 6, 900), rng.uniform(4, 6, 70)
    p, s = rng.permutation(70), rng.permutation(900)
    found = in_balls(queries, references, radii=radii, query_radii=query_radii)
    other = in_balls(queries[p], references[s], radii=radii[s], query_radii=query_radii[p])
    np.testing.assert_array_equal(other.inside, found.inside[p])
    np.testing.assert_array_equal(other.hit, found.hit[:, s])
    np.testing.assert_array_equal(other.reached, found.reached[:, s])


def test_float32_leaves_few_pairs_open_and_some(rng, monkeypatch):
    measured, pairs = balls._distances, []

    def spy(points, references, i, j):
        pairs.append(len(i))
        return measured(points, references, i, j)

    monkeypatch.setattr(balls, "_distances", spy)
    queries, references = rng.normal(size=(500, 64)), rng.normal(size=(600, 64))
    d = brute_force(queries, references)
    in_balls(queries, references, radii=np.sort(d, axis=0)[5] * (1 + 1e-12))
    # 600 spheres go through a query each; and hardly a pair is as near to one by chance.
    assert 600 <= sum(pairs) < 700


def shapes(num: int, dim: int) -> tuple:
    s = jax.ShapeDtypeStruct
    return (
        s((64, dim), "f4"), s((64,), "f4"), s((64,), "f4"),
        s((num, dim), "u1"), s((num,), "f4"), s((dim,), "f4"), s((), "i4"),
    )  # fmt: skip


STATIC = {"block": 512, "images": True}


def test_no_float_copy_of_the_references_and_full_precision():
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(functools.partial(balls._tile, **STATIC))(*shapes(9000, 784))
    found = list(equations(jaxpr.jaxpr))
    arrays = [v.aval for e in found for v in e.outvars]
    largest = max(a.size for a in arrays if jnp.issubdtype(a.dtype, jnp.floating))
    assert largest == 512 * 784  # one block
    assert not [a for a in arrays if a.dtype == np.float64 and a.ndim]
    products = [e for e in found if e.primitive.name == "dot_general"]
    assert len(products) == 1
    assert products[0].params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(platform):
    traced = balls._tile.trace(*shapes(10_000, 784), **STATIC)
    assert traced.lower(lowering_platforms=(platform,)).as_text()


def test_kernel_without_jit(rng):
    queries, references = (x.astype(np.float32) for x in features(rng))
    zeros, radii = np.zeros(20, "f4"), np.full(900, 30.0, "f4")
    norms = np.linalg.norm(queries, axis=1)
    args = (queries, norms, radii[:70], references, radii, zeros, np.int32(0))
    run = functools.partial(balls._tile, block=900, images=False)
    compiled = run(*args)
    with jax.disable_jit():
        eager = run(*(jnp.asarray(a) for a in args))
    np.testing.assert_array_equal(compiled, eager)  # no pair is within 1e-4 of a sphere by chance
    assert set(np.unique(eager)) == {0, 3}


X = np.zeros((5, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: in_balls(X, X, radii=np.ones(4)), ValueError, r"radii must be 5 .* shape \(4,\)"),
        (lambda: in_balls(X, X, radii=-np.ones(5)), ValueError, "radii must be 5 finite numbers"),
        (
            lambda: in_balls(X, X, query_radii=np.full(5, np.nan)), ValueError,
            "query_radii must be 5 finite numbers >= 0, one a query",
        ),
        (lambda: in_balls(X, X[:, :2]), ValueError, "queries must have the trailing shape"),
        (lambda: in_balls(X * np.nan, X), ValueError, "queries must be finite .* 5 of 5"),
        (lambda: in_balls(X, X, num_parts=6), ValueError, "num_parts must be from 1 to 5; got 6"),
        (lambda: in_balls(X, X, block_size=0), ValueError, "block_size must be at least 1"),
        (lambda: in_balls(X, X, num_parts=cast(Any, 1.5)), TypeError, "must be a whole number"),
    ],
)  # fmt: skip
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call()
