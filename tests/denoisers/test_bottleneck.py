"""The bottleneck denoisers against float64, their coinciding limits, and where samples end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff import noise
from jdiff.denoisers import BottleneckDenoiser, LinearDenoiser, OptimalDenoiser

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))
# (code, decoder)
KINDS = [("linear", "linear"), ("linear", "posterior"), ("posterior", "linear")]
kinds = pytest.mark.parametrize(("code", "decoder"), KINDS)


def model(images: np.ndarray) -> np.ndarray:
    """[N, D] in model units, float64."""
    flat = images.reshape(len(images), -1)
    return flat / 127.5 - 1 if images.dtype == np.uint8 else flat.astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def direct(
    images: np.ndarray, y: np.ndarray, sigma: float, p: np.ndarray, r: int, code: str, decoder: str
) -> np.ndarray:
    """The table's rows, on axes of the D x D covariance."""
    x = model(images)
    mu = p @ x
    l, v = np.linalg.eigh((x - mu).T @ ((x - mu) * p[:, None]))
    l, v = l[-r:], v[:, -r:]
    codes, u = (x - mu) @ v, (model(y) - mu) @ v
    if code == decoder == "linear":
        x_hat = mu + (u * l / (l + sigma**2)) @ v.T
    else:
        squared = np.square(u[:, None] - codes[None]).sum(2)
        with np.errstate(divide="ignore"):
            weights = softmax(np.log(p) - squared / (2 * sigma**2))
        x_hat = weights @ x if decoder == "posterior" else mu + (weights @ codes) @ v.T
    return x_hat.reshape(y.shape)


def noisy(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    clean = model(images).reshape(images.shape)
    return (clean + sigma * rng.standard_normal(images.shape)).astype(np.float32)


@pytest.mark.core
@kinds
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("code_dim", [1, 7])
@pytest.mark.parametrize("num", [200, 20], ids=["N > D", "N < D"])
def test_against_the_direct_formula(
    num: int, code_dim: int, weighted: bool, code: str, decoder: str, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (num, 4, 5, 3), dtype=np.uint8)
    weights = rng.uniform(0.1, 1, num) if weighted else np.ones(num)
    denoiser = BottleneckDenoiser.fit(
        images, code_dim, decoder, code, weights=weights if weighted else None
    )
    for sigma in (50.0, 5.0, 1.0, 0.3, 0.1, 0.03, 0.01):
        y = noisy(images[:16], sigma, rng)
        expected = direct(images, y, sigma, weights / weights.sum(), code_dim, code, decoder)
        # Codes are rounded by about e = 1e-7; of images whose codes are a few sigma apart and may
        # blend, the logits are then off by e / sigma, and the images themselves differ by 2.
        np.testing.assert_allclose(
            call(denoiser, y, jnp.float32(sigma)), expected, atol=5e-6 + 1e-6 / sigma
        )


@pytest.mark.core
def test_float_points_outside_the_unit_range(rng: np.random.Generator) -> None:
    points = (2 * rng.standard_normal((50, 1, 1, 2))).astype(np.float32)
    y = noisy(points[:8], 0.5, rng)
    for code, decoder in KINDS:
        denoiser = BottleneckDenoiser.fit(points, 1, decoder, code)
        expected = direct(points, y, 0.5, np.full(50, 1 / 50), 1, code, decoder)
        np.testing.assert_allclose(call(denoiser, y, jnp.float32(0.5)), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [20.0, 0.5, 0.02])
@pytest.mark.parametrize("code_dim", [1, 5])
def test_two_linear_halves_are_the_linear_denoiser(
    code_dim: int, sigma: float, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    y = noisy(images[:6], sigma, rng)
    linear = LinearDenoiser.fit(images, rank=code_dim)
    both = BottleneckDenoiser.fit(images, code_dim)
    assert both.bank is None
    np.testing.assert_array_equal(
        call(both, y, jnp.float32(sigma)), call(linear, y, jnp.float32(sigma))
    )


@pytest.mark.parametrize("sigma", [20.0, 2.0, 0.5, 0.1, 0.02])
def test_a_code_of_all_axes_leaves_the_optimal_denoiser(
    sigma: float, rng: np.random.Generator
) -> None:
    # 12 images span 11 axes: distances within them are those of the codes, and what lies across
    # adds the same to every distance.
    images = rng.integers(0, 256, (12, 3, 4, 3), dtype=np.uint8)
    y = noisy(images, sigma, rng)
    optimal = call(OptimalDenoiser.fit(images), y, jnp.float32(sigma))
    for code, decoder in KINDS[1:]:
        full = BottleneckDenoiser.fit(images, 11, decoder, code)
        np.testing.assert_allclose(call(full, y, jnp.float32(sigma)), optimal, atol=2e-5)
    # One axis less is another denoiser, where the noise blends images.
    if sigma == 2:
        less = call(BottleneckDenoiser.fit(images, 10, "posterior"), y, jnp.float32(sigma))
        assert np.abs(np.asarray(less) - np.asarray(optimal)).max() > 0.01


@pytest.mark.parametrize("sigma", [10.0, 1.0, 0.1])
def test_every_code_follows_its_own_denoiser(sigma: float, rng: np.random.Generator) -> None:
    # V^T D(y) is q(V^T y), q the optimal denoiser of the projected data, whatever decodes it.
    images = rng.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    y = noisy(images[:9], sigma, rng)
    for code, decoder in KINDS[1:]:
        denoiser = BottleneckDenoiser.fit(images, 2, decoder, code)
        clean = model(images).reshape(60, 4, 4, 1).astype(np.float32)
        points = np.asarray(denoiser.codes(clean)).reshape(60, 1, 1, 2)
        u = np.asarray(denoiser.codes(y)).reshape(9, 1, 1, 2)
        q = np.asarray(call(OptimalDenoiser.fit(points), u, jnp.float32(sigma))).reshape(9, 2)
        x_hat = call(denoiser, y, jnp.float32(sigma))
        np.testing.assert_allclose(denoiser.codes(x_hat), q, atol=1e-5)


def test_codes_are_coordinates_about_the_mean(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (80, 4, 4, 3), dtype=np.uint8)
    denoiser = BottleneckDenoiser.fit(images, 5, "posterior")
    basis = np.asarray(denoiser.basis)
    assert basis.shape == (48, 5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-5)
    assert denoiser.bank is not None
    assert denoiser.bank.values is not None
    codes = np.asarray(denoiser.bank.images)
    clean = model(images).reshape(80, 4, 4, 3).astype(np.float32)
    np.testing.assert_allclose(denoiser.codes(clean), codes, atol=1e-5)
    # The codes' covariance is diagonal and holds the eigenvalues.
    np.testing.assert_allclose(codes.mean(0), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(codes.T @ codes / 80, np.diag(denoiser.eigenvalues), atol=1e-5)
    assert denoiser.bank.values.dtype == np.uint8  # no float copy of the data


@pytest.mark.parametrize("sigma", [1.0, 0.05])
def test_equal_codes_blend_half_and_half(sigma: float) -> None:
    # Two pairs of twins, (+-2, +-1): the code is the first value, the images differ in the second.
    points = np.array([[-2, 1], [-2, -1], [2, 1], [2, -1]], np.float32).reshape(4, 1, 1, 2)
    y = np.array([3.0, 0.9], np.float32).reshape(1, 1, 1, 2)
    first = 2 * np.tanh(6 / sigma**2)
    for weights, second in ((None, 0.0), ([3, 1, 3, 1], 0.5)):
        denoiser = BottleneckDenoiser.fit(points, 1, "posterior", weights=weights)
        x_hat = call(denoiser, y, jnp.float32(sigma))
        np.testing.assert_allclose(np.ravel(x_hat), [first, second], atol=1e-5)
    optimal = np.asarray(call(OptimalDenoiser.fit(points), y, jnp.float32(0.05))).ravel()
    # The images themselves are told apart, where the noise is small.
    np.testing.assert_allclose(optimal, [2, 1], atol=1e-5)


@kinds
def test_images_of_weight_zero_do_not_exist(
    code: str, decoder: str, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    weights = np.where(np.arange(40) % 4 == 0, 1.0, 0.0)
    y = noisy(images[:3], 0.5, rng)
    few = call(BottleneckDenoiser.fit(images[::4], 3, decoder, code), y, jnp.float32(0.5))
    same = BottleneckDenoiser.fit(images, 3, decoder, code, weights=weights)
    np.testing.assert_allclose(call(same, y, jnp.float32(0.5)), few, atol=1e-5)
    with pytest.raises(ValueError, match="code_dim must be from 1 to 9; got 10"):
        BottleneckDenoiser.fit(images, 10, decoder, code, weights=weights)


@pytest.mark.parametrize(("code", "decoder"), KINDS[1:])
@pytest.mark.parametrize("sigma", [5.0, 0.05])
def test_block_size_does_not_matter(
    code: str, decoder: str, sigma: float, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (70, 4, 4, 1), dtype=np.uint8)
    y = noisy(images[:5], sigma, rng)
    found, lengths = [], []
    for block_size in (16, 70):
        denoiser = BottleneckDenoiser.fit(images, 1, decoder, code, block_size=block_size)
        assert denoiser.bank is not None
        lengths.append(len(denoiser.bank.images) // denoiser.bank.block_size)
        found.append(np.asarray(call(denoiser, y, jnp.float32(sigma))))
    assert lengths == [5, 1]  # the scan really had other lengths
    np.testing.assert_allclose(*found, atol=2e-5)


@kinds
def test_a_different_sigma_a_row_and_one_compilation(
    code: str, decoder: str, rng: np.random.Generator
) -> None:
    traces = 0

    @jax.jit
    def counted(denoiser: BottleneckDenoiser, y: jax.Array, sigma: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return denoiser(y, sigma)

    images = rng.integers(0, 256, (40, 3, 3, 1), dtype=np.uint8)
    one, two = (BottleneckDenoiser.fit(part, 2, decoder, code) for part in np.split(images, 2))
    y = noisy(images[:2], 0.5, rng)
    both = counted(one, y, jnp.asarray([0.1, 5.0]))
    for i, sigma in enumerate((0.1, 5.0)):
        alone = call(one, y[i : i + 1], jnp.float32(sigma))
        np.testing.assert_allclose(both[i], alone[0], atol=1e-5)
    other = counted(two, y, jnp.asarray([0.1, 5.0]))
    assert traces == 1
    assert np.abs(np.asarray(both) - np.asarray(other)).max() > 0.01


# Sampled to sigma = 0.


@functools.cache
def digits() -> np.ndarray:
    return jdiff.data.load("digits").images[:200]


def distances(samples: jax.Array, atoms: np.ndarray) -> np.ndarray:
    flat = np.asarray(samples, np.float64).reshape(len(samples), -1)
    return np.sqrt(np.square(flat[:, None] - atoms[None]).sum(2))


def projected(denoiser: BottleneckDenoiser, images: np.ndarray) -> np.ndarray:
    mu, v = (np.asarray(a, np.float64) for a in (denoiser.mean, denoiser.basis))
    return mu + (model(images) - mu) @ v @ v.T


@pytest.mark.core
@pytest.mark.parametrize(("code", "decoder"), KINDS[1:])
def test_samples_are_training_images_or_their_projections(code: str, decoder: str) -> None:
    # The codes of 200 digits, three numbers each, are 0.12 or more apart, 60 times the last sigma:
    # no two blend.
    denoiser = BottleneckDenoiser.fit(digits(), 3, decoder, code)
    atoms = model(digits()) if decoder == "posterior" else projected(denoiser, digits())
    samples = jdiff.sample(denoiser, jax.random.key(0), 128)
    apart = distances(samples, atoms)
    assert apart.min(1).max() < 1e-3
    # Many of them: 128 draws of 200 would hit 95 different ones on average.
    assert len(np.unique(apart.argmin(1))) > 60
    # Not where the other decoder puts them.
    others = projected(denoiser, digits()) if decoder == "posterior" else model(digits())
    assert distances(samples, others).min(1).min() > 0.5


def test_where_codes_collide_images_blend_and_codes_do_not() -> None:
    # One number for 200 digits, from -3.4 to 3.6: half of them have a neighbour nearer than 0.01,
    # five times the last sigma, and two or more images are mixed there.
    denoiser = BottleneckDenoiser.fit(digits(), 1, "posterior")
    samples = jdiff.sample(denoiser, jax.random.key(0), 128)
    share = np.mean(distances(samples, model(digits())).min(1) < 1e-2)
    assert 0.3 < share < 0.8
    assert denoiser.bank is not None
    codes = np.asarray(denoiser.bank.images)
    gaps = np.abs(np.asarray(denoiser.codes(samples)) - codes.T).min(1)
    assert gaps.max() < 0.02
    # With a linear decoder every sample is a projected digit to that same gap.
    linear = BottleneckDenoiser.fit(digits(), 1, code="posterior")
    samples = jdiff.sample(linear, jax.random.key(0), 128)
    assert distances(samples, projected(linear, digits())).min(1).max() < 0.02


@pytest.mark.parametrize("code", ["linear", "posterior"])
def test_a_linear_decoder_is_sampled_among_the_codes(code: str, rng: np.random.Generator) -> None:
    # Recording makes the sampler walk through images; without, it stays in the code's space.
    y = (80 * rng.standard_normal((16, 8, 8, 1))).astype(np.float32)
    denoiser = BottleneckDenoiser.fit(digits(), 3, code=code)
    assert denoiser.coordinates() is not None
    solve = functools.partial(jdiff.sampling.solve, denoiser, y, noise.karras(18))
    # The codes start at 80 or so, where float32 resolves 1e-5.
    np.testing.assert_allclose(solve(), solve(record=("x_hat",))[0], atol=1e-4)
    assert BottleneckDenoiser.fit(digits(), 3, "posterior").coordinates() is None


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"code_dim": 0}, ValueError, "code_dim must be from 1 to 4; got 0"),
        ({"code_dim": 5}, ValueError, "code_dim must be from 1 to 4; got 5"),
        ({"code_dim": 1.5}, TypeError, "code_dim must be a whole number; got 1.5"),
        ({"decoder": "posterio"}, ValueError, "decoder is 'posterio'. Did you mean 'posterior'?"),
        ({"code": "linaer"}, ValueError, "code is 'linaer'. Did you mean 'linear'?"),
        ({"code": None}, ValueError, "code is None. Accepted: linear, posterior"),
        (
            {"code": "posterior", "decoder": "posterior"},
            ValueError,
            r"code and decoder are both 'posterior'.* Accepted \(code, decoder\): "
            r"\(linear, linear\), \(linear, posterior\), \(posterior, linear\)",
        ),
        ({"weights": [1.0, 2.0]}, ValueError, r"weights must have shape \(5,\); got \(2,\)"),
        ({"weights": [1, 1, 1, 1, -1]}, ValueError, "weights must be finite and not negative"),
        ({"weights": [0] * 5}, ValueError, "weights must not all be zero"),
        ({"images": np.full((5, 4, 4, 1), np.nan)}, ValueError, "images holds NaN"),
        ({"images": np.zeros((5, 4, 4, 1), int)}, TypeError, "images must be uint8, or float"),
        ({"images": np.zeros((5, 4, 4))}, ValueError, r"images must have shape \[N, height"),
        ({"decoder": "posterior", "block_size": 0}, ValueError, "block_size must be at least 1"),
    ],
    ids=str,
)
def test_bad_input_of_fit(
    arguments: dict, error: type, message: str, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    with pytest.raises(error, match=message):
        BottleneckDenoiser.fit(**{"images": images, "code_dim": 2, **arguments})


@kinds
def test_bad_input_of_a_call(code: str, decoder: str, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    denoiser = BottleneckDenoiser.fit(images, 2, decoder, code)
    with pytest.raises(ValueError, match="labels must be None: BottleneckDenoiser has no classes"):
        denoiser(jnp.zeros((1, 4, 4, 1)), jnp.float32(1.0), jnp.zeros(1, int))
    with pytest.raises(ValueError, match=r"y must be a float array \[B, 4, 4, 1\]; got float32"):
        denoiser(jnp.zeros((2, 4, 2, 2)), jnp.float32(1.0))
    with pytest.raises(ValueError, match=r"y must be a float array \[B, 4, 4, 1\]; got uint8"):
        denoiser.codes(images)
    with pytest.raises(ValueError, match=r"sigma must be a scalar or \[2\]; got shape \(3,\)"):
        denoiser(jnp.zeros((2, 4, 4, 1)), jnp.ones(3))
