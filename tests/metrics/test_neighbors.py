import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hard_points import CASES, brute_force, compared, features, images, offset, outlier, twins
from sklearn.neighbors import NearestNeighbors

from jdiff.metrics import inside_balls, nearest, neighbors, shortlist
from jdiff.metrics.neighbors import nearest_cosine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nearest_is_a_float64_brute_force(case, rng):
    queries, references = case(rng)
    expected = brute_force(queries, references)
    found = nearest(queries, references, 5)
    # Two orders of summing at most 90 squares in float64 differ by less than 1e-13.
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :5], rtol=1e-12)
    at = np.take_along_axis(expected, found.indices, axis=1)
    np.testing.assert_allclose(at, found.distances, rtol=1e-12)
    assert all(len(set(row)) == 5 for row in found.indices)


@pytest.mark.core
def test_nearest_is_that_of_scikit_learn(digits):
    train, held_out = digits
    reference = NearestNeighbors(n_neighbors=10, algorithm="brute")
    flat = [(x.reshape(len(x), -1) / np.float32(255)).astype(np.float64) for x in (train, held_out)]
    distances, indices = reference.fit(flat[0]).kneighbors(flat[1])
    found = nearest(held_out, train, 10)
    np.testing.assert_array_equal(found.indices, indices)
    # scikit-learn takes |x|^2 - 2 x.y + |y|^2 in float64, of squares up to 30.
    np.testing.assert_allclose(found.distances, distances, atol=1e-7)


def test_ties_go_to_the_smallest_index(rng):
    # Small whole numbers: every distance is exact, and nearly every one is shared.
    references = rng.integers(-2, 3, (500, 3)).astype(np.float64)
    queries = rng.integers(-3, 4, (60, 3)).astype(np.float64)
    expected = np.argsort(brute_force(queries, references), axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(nearest(queries, references, 8).indices, expected)


def test_repeats_are_found_in_order(rng):
    base = rng.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    found = nearest(base, np.concatenate([base, base, base]), 3)
    np.testing.assert_array_equal(found.indices, np.arange(50)[:, None] + [[0, 50, 100]])
    np.testing.assert_array_equal(found.distances, 0.0)


def test_more_repeats_than_a_list_holds(rng):
    # 400 equal references: no bound separates them, so that lists must grow.
    references = np.concatenate([rng.normal(size=(800, 6)), np.ones((400, 6))])
    found = nearest(np.ones((2, 6)), references, 3)
    np.testing.assert_array_equal(found.indices, [[800, 801, 802]] * 2)


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """Every call of the device's kernel: its width, block and the length of its scan."""
    kernel, seen = shortlist.shortlist, []

    def spy(*args, **static):
        jaxpr = jax.make_jaxpr(functools.partial(kernel, **static))(*args)
        lengths = [e.params["length"] for e in equations(jaxpr.jaxpr) if e.primitive.name == "scan"]
        seen.append({**static, "lengths": lengths})
        return kernel(*args, **static)

    monkeypatch.setattr(shortlist, "shortlist", spy)
    return seen


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def test_lists_grow_only_where_they_must(calls, rng):
    close = rng.normal(size=(600, 6)) * 1e-7  # closer together than float32 separates about 1
    references = np.concatenate([rng.normal(size=(800, 6)) * 3, close + 1])
    queries = np.concatenate([np.full((2, 6), 1.0), np.full((2, 6), -9.0)])
    found = nearest(queries, references, 2)
    expected = brute_force(queries, references)
    np.testing.assert_array_equal(found.indices, np.argsort(expected, axis=1, kind="stable")[:, :2])
    assert [call["width"] for call in calls] == [34, 34 * 8]  # then all 1,400, without the device
    calls.clear()
    nearest(queries[2:], references, 2)
    assert [call["width"] for call in calls] == [34]


def test_block_size_does_not_matter(calls, rng):
    queries, references = twins(rng)
    found = [nearest(queries, references, 4, block_size=size) for size in (64, 300, 1000, 5000)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.indices, found[0].indices)
        np.testing.assert_array_equal(other.distances, found[0].distances)
    # The varied thing really varied: 1,000 references.
    assert [call["lengths"] for call in calls] == [[16], [4], [1], [1]]


def test_parts_do_not_matter(calls, rng, monkeypatch):
    """On a CPU many references are searched part by part; the last overlaps its neighbour."""
    queries, references = twins(rng)
    pixels = rng.integers(0, 256, (450, 3, 3, 1), dtype=np.uint8)
    radii, among = rng.uniform(0, 2, len(references)), np.arange(0, len(references), 3)

    def all_ways() -> list:
        return [
            *nearest(queries, references, 4, block_size=70),
            *nearest(references, references, 3, exclude_self=True, block_size=70),
            *nearest(queries, references, 4, among=among, block_size=70),
            *nearest(pixels[:9], np.concatenate([pixels, pixels]), 2, block_size=100),
            *nearest_cosine(queries, references, 4, block_size=70),
            inside_balls(queries, references, radii, block_size=70),
        ]

    whole = all_ways()
    in_one = len(calls)
    monkeypatch.setattr(neighbors, "PART", 1)  # a block a part
    for expected, found in zip(whole, all_ways(), strict=True):
        np.testing.assert_array_equal(found, expected)
    # The varied thing really varied: 1,000 references are 15 parts of 70.
    if neighbors.parallel.row_devices() is None and jax.default_backend() == "cpu":
        assert len(calls) - in_one > 5 * in_one


def test_order_does_not_matter(rng):
    queries, references = images(rng)
    found = nearest(queries, references, 4)
    p, s = rng.permutation(len(queries)), rng.permutation(len(references))
    other = nearest(queries[p], references[s], 4)
    np.testing.assert_array_equal(s[other.indices], found.indices[p])
    np.testing.assert_array_equal(other.distances, found.distances[p])


@pytest.mark.parametrize("n", [100, neighbors.QUERIES + 50])
def test_exclude_self_leaves_out_the_index_and_not_its_repeats(n, rng):
    points = rng.normal(size=(n, 3))
    points[7] = points[3]
    found = nearest(points, points, 2, exclude_self=True)
    expected = brute_force(points, points)
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_array_equal(found.indices, np.argsort(expected, axis=1, kind="stable")[:, :2])
    assert found.indices[3, 0] == 7
    assert found.distances[3, 0] == 0


@pytest.mark.parametrize("num", [20, 500])  # lists of everything, and lists of the device
def test_among_allows_only_those(num, rng):
    queries, references = rng.normal(size=(9, 4)), rng.normal(size=(num, 4))
    among = np.sort(rng.choice(num, 8, replace=False))
    found = nearest(queries, references, 8, among=among)
    order = np.argsort(brute_force(queries, references[among]), axis=1)
    np.testing.assert_array_equal(found.indices, among[order])


def cosines(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """[n, N] in float64, of the float32 values compared."""
    q, r = compared(queries), compared(references)
    length = lambda x: np.sqrt(np.square(x).sum(axis=-1))
    return np.stack([(r * one).sum(axis=1) / (length(r) * length(one)) for one in q])


def beam(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Directions 1e-5 apart, of lengths from 1e-3 to 1e3: cosines within 1e-9 of 1."""
    axis = rng.normal(size=(1, 12))
    scales = 10 ** rng.uniform(-3, 3, (900, 1))
    references = (axis + 1e-5 * rng.normal(size=(900, 12))) * scales
    return axis + 1e-5 * rng.normal(size=(20, 12)), references


@pytest.mark.parametrize("case", [*CASES, beam], ids=lambda case: case.__name__)
def test_nearest_cosine_is_a_float64_brute_force(case, rng):
    queries, references = case(rng)
    expected = cosines(queries, references)
    found = nearest_cosine(queries, references, 5)
    # Sums of at most 90 products of size 1 at most, in float64.
    largest = -np.sort(-expected, axis=1)[:, :5]
    np.testing.assert_allclose(found.cosines, largest, rtol=0, atol=1e-14)
    at = np.take_along_axis(expected, found.indices, axis=1)
    np.testing.assert_allclose(at, found.cosines, rtol=0, atol=1e-14)
    assert all(len(set(row)) == 5 for row in found.indices)


def test_a_plain_float32_product_would_not_do(rng):
    # So that the case above is one: its largest float32 cosine is mostly another's.
    queries, references = beam(rng)
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    plain = np.argmax(unit(queries) @ unit(references).T, axis=1)
    assert np.mean(plain != nearest_cosine(queries, references, 1).indices[:, 0]) > 0.5


def test_nearest_cosine_does_not_see_lengths(rng):
    queries, references = features(rng)
    found = nearest_cosine(queries, references, 3)
    lengths = 2.0 ** rng.integers(-20, 20, (900, 1))  # of these rounding knows nothing either
    scaled = nearest_cosine(queries * 4, references * lengths, 3)
    assert len(np.unique(lengths)) > 30
    np.testing.assert_array_equal(scaled.indices, found.indices)
    np.testing.assert_array_equal(scaled.cosines, found.cosines)
    assert not np.array_equal(nearest(queries, references, 3).indices, found.indices)


def test_equal_cosines_go_to_the_smallest_index(rng):
    base = rng.normal(size=(40, 6))
    found = nearest_cosine(base, np.concatenate([2 * base, base, base / 4]), 3)
    np.testing.assert_array_equal(found.indices, np.arange(40)[:, None] + [[0, 40, 80]])
    # A row's cosine with itself is 1 but for a rounding or two.
    np.testing.assert_allclose(found.cosines, 1.0, rtol=0, atol=1e-15)
    assert found.cosines.max() <= 1


def test_nearest_cosine_whatever_the_blocks_and_the_order(calls, rng):
    queries, references = twins(rng)
    found = [nearest_cosine(queries, references, 4, block_size=size) for size in (64, 300, 5000)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.indices, found[0].indices)
        np.testing.assert_array_equal(other.cosines, found[0].cosines)
    assert {tuple(call["lengths"]) for call in calls} == {(16,), (4,), (1,)}
    p, s = rng.permutation(len(queries)), rng.permutation(len(references))
    other = nearest_cosine(queries[p], references[s], 4)
    np.testing.assert_array_equal(other.cosines, found[0].cosines[p])


def test_nearest_cosine_among_and_without_itself(rng):
    points = rng.normal(size=(300, 3))
    among = np.sort(rng.choice(300, 50, replace=False))
    found = nearest_cosine(points, points, 2, among=among, exclude_self=True)
    expected = cosines(points, points)
    np.fill_diagonal(expected, -np.inf)
    order = np.argsort(-expected[:, among], axis=1, kind="stable")[:, :2]
    np.testing.assert_array_equal(found.indices, among[order])


def test_a_row_of_zeros_has_no_cosine(rng):
    points = rng.normal(size=(50, 3))
    holed = points.copy()
    holed[[7, 20, 31]] = 0
    words = "must not hold rows of zeros .* got 3 of 50, the first at 7"
    with pytest.raises(ValueError, match="queries " + words):
        nearest_cosine(holed, points, 1)
    with pytest.raises(ValueError, match="references " + words):
        nearest_cosine(points, holed, 1)
    black = np.full((2, 4, 4, 1), -1.0)  # in model units
    with pytest.raises(ValueError, match="queries .* got 2 of 2, the first at 0"):
        nearest_cosine(black, np.ones((3, 4, 4, 1)), 1)


def test_inside_balls_is_a_double_loop(rng):
    queries, references = rng.normal(size=(300, 3)), rng.normal(size=(400, 3))
    radii = rng.uniform(0, 0.5, 400)
    expected = [
        any(
            np.linalg.norm(np.float64(np.float32(q)) - np.float64(np.float32(r))) <= radius
            for r, radius in zip(references, radii, strict=True)
        )
        for q in queries
    ]
    inside = inside_balls(queries, references, radii)
    np.testing.assert_array_equal(inside, expected)
    assert 30 < inside.sum() < 270
    for size in (37, 400):
        np.testing.assert_array_equal(
            inside, inside_balls(queries, references, radii, block_size=size)
        )


def test_inside_balls_on_the_sphere():
    # 3-4-5 triangles among whole numbers: exactly on the sphere is inside, a hair less is not.
    references = np.arange(60.0)[:, None] * 100 + np.zeros((1, 2))
    queries = references + np.array([[3.0, 4.0]])
    assert inside_balls(queries, references, np.full(60, 5.0)).all()
    assert not inside_balls(queries, references, np.full(60, np.nextafter(5.0, 0))).any()


def test_inside_balls_when_bounds_separate_nothing(rng):
    # 300 nearly equal balls, each missing the query by less than float32 sees, but for the last.
    references = np.concatenate([np.zeros((300, 3)), rng.normal(size=(500, 3)) + 90]) + 1
    queries = np.full((2, 3), 1.5)
    radii = np.full(800, np.sqrt(0.75) * (1 - 1e-12))
    assert not inside_balls(queries, references, radii).any()
    radii[299] = np.sqrt(0.75) * (1 + 1e-12)
    assert inside_balls(queries, references, radii).all()


def arguments(queries: np.ndarray, references: np.ndarray, block: int) -> tuple:
    rows, centre = jnp.asarray(references), np.float32(references.mean(axis=0))
    squares = shortlist.squares(rows, jnp.asarray(centre), block, False)
    norms = np.linalg.norm(queries - centre, axis=1).astype("f4")
    n, num = len(queries), len(references)
    return (
        jnp.asarray(queries), jnp.asarray(norms), jnp.full(n, -1, jnp.int32),
        rows, squares, jnp.ones(num, bool), jnp.zeros(num), jnp.asarray(centre),
    )  # fmt: skip


@pytest.mark.parametrize("case", [features, offset, outlier], ids=lambda case: case.__name__)
def test_the_bounds_hold_and_are_not_idle(case, rng):
    queries, references = (x.astype(np.float32) for x in case(rng))
    args = arguments(queries, references, 100)
    width = len(references)
    lower, indices = shortlist.shortlist(*args, width=width, block=100, images=False)
    lower, indices = np.asarray(lower, np.float64), np.asarray(indices)
    q, r, centre = (np.asarray(x, np.float64) for x in (queries, references, args[-1]))
    exact = np.square(brute_force(queries, references)) - np.square(q - centre).sum(1)[:, None]
    exact = np.take_along_axis(exact, indices, axis=1)
    a, b = np.linalg.norm(q - centre, axis=1)[:, None], np.linalg.norm(r - centre, axis=1)[indices]
    bound = shortlist.rounding(a, b, np.linalg.norm(centre), np.zeros_like(b), q.shape[1])
    assert np.all(lower <= exact)
    assert np.all(exact <= lower + 2 * bound)
    if case is features:  # relative to the numbers bounded: 52 * 2^-23 * 3 and some
        assert np.all(bound < 1e-4 * np.square(a + b))


def test_kernel_without_jit(rng):
    queries, references = (x.astype(np.float32) for x in features(rng))
    args = arguments(queries, references, 400)
    run = functools.partial(shortlist.shortlist, width=3, block=400, images=False)
    compiled = run(*args)
    with jax.disable_jit():
        eager = run(*args)
    np.testing.assert_array_equal(compiled[1], eager[1])
    # Two compilations of one matmul of about 20 products of size 1.
    np.testing.assert_allclose(compiled[0], eager[0], atol=1e-4)


def shapes(num: int, dim: int) -> tuple:
    s = jax.ShapeDtypeStruct
    return (
        s((64, dim), "f4"), s((64,), "f4"), s((64,), "i4"),
        s((num, dim), "u1"), s((num,), "f4"), s((num,), "bool"), s((num,), "f4"), s((dim,), "f4"),
    )  # fmt: skip


STATIC = {"width": 34, "block": 512, "images": True}


@pytest.mark.core
def test_no_float_copy_of_the_references_and_full_precision():
    num, dim = 10_000, 784
    kernels = [
        jax.make_jaxpr(functools.partial(shortlist.shortlist, **STATIC))(*shapes(num, dim)),
        jax.make_jaxpr(functools.partial(shortlist.squares, block=512, images=True))(
            jax.ShapeDtypeStruct((num, dim), "u1"), jax.ShapeDtypeStruct((dim,), "f4")
        ),
    ]
    found = [e for kernel in kernels for e in equations(kernel.jaxpr)]
    variables = [v.aval for e in found for v in [*e.invars, *e.outvars]]
    assert any(a.dtype == np.uint8 and a.size == num * dim for a in variables)  # it was looked at
    largest = max(a.size for a in variables if jnp.issubdtype(a.dtype, jnp.floating))
    assert largest == 512 * dim  # one block
    products = [e for e in found if e.primitive.name == "dot_general"]
    assert len(products) == 1
    assert products[0].params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


def test_temporary_memory_does_not_grow_with_the_references():
    temporary = [
        shortlist.shortlist.lower(*shapes(num, 784), **STATIC).compile().memory_analysis()
        for num in (4096, 8 * 4096)
    ]
    small, large = (cast(Any, analysis).temp_size_in_bytes for analysis in temporary)
    assert 0 < large <= small + 1024


def test_no_float64_where_it_is_enabled():
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(functools.partial(shortlist.shortlist, **STATIC))(*shapes(5000, 9))
    arrays = [v.aval for e in equations(jaxpr.jaxpr) for v in e.outvars if v.aval.ndim]
    assert not [a for a in arrays if a.dtype == np.float64]


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(platform):
    traced = shortlist.shortlist.trace(*shapes(10_000, 784), **STATIC)
    assert traced.lower(lowering_platforms=(platform,)).as_text()


X = np.zeros((5, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: nearest(X, X, 6), ValueError,
            "k must be at most 5, the number of references; got 6",
        ),
        (
            lambda: nearest(X, X, 5, exclude_self=True), ValueError,
            "k must be at most 4, the number of references other than the query itself; got 5",
        ),
        (
            lambda: nearest(X, X, 2, among=[1]), ValueError,
            "k must be at most 1, the number of references in among; got 2",
        ),
        (lambda: nearest(X, X, 0), ValueError, "k must be at least 1; got 0"),
        (lambda: nearest(X, X, cast(Any, 1.0)), TypeError, "k must be a whole number"),
        (
            lambda: nearest(X[:2], X, 1, exclude_self=True), ValueError,
            "queries must be the references themselves .* got 2 queries and 5 references",
        ),
        (
            lambda: nearest(X[:, :2], X, 1), ValueError,
            r"queries must have the trailing shape of references, \(3,\); got \(2,\)",
        ),
        (lambda: nearest(X * np.nan, X, 1), ValueError, "queries must be finite .* 5 of 5"),
        (lambda: nearest(X, X, 1, block_size=-1), ValueError, "block_size must be at least 1"),
        (lambda: nearest(X, X, 1, block_size=0), ValueError, "block_size must be at least 1"),
        (
            lambda: inside_balls(X, X, np.ones(4)), ValueError,
            r"radii must be 5 .* got shape \(4,\)",
        ),
        (
            lambda: inside_balls(X, X, -np.ones(5)), ValueError,
            "radii must be 5 finite numbers >= 0",
        ),
    ],
)  # fmt: skip
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call()
