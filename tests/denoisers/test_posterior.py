"""The posterior core against a brute force in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import noise
from jdiff.denoisers import OptimalDenoiser, posterior

GRID = noise.karras(18)[:-1]
call = jax.jit(lambda denoiser, y, sigma, labels=None: denoiser(y, sigma, labels))
call_posterior = jax.jit(lambda denoiser, y, sigma: denoiser.posterior(y, sigma))


def brute_force(
    images: np.ndarray, y: np.ndarray, sigma: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """Posterior weights [B, N] in float64, from the differences themselves."""
    x = as_float32(images).reshape(len(images), -1).astype(np.float64)
    flat = y.reshape(len(y), -1).astype(np.float64)
    squared = np.array([np.square(row - x).sum(1) for row in flat])
    with np.errstate(divide="ignore"):
        logits = -squared / (2 * sigma**2) + (0 if weights is None else np.log(weights))
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def as_float32(images: np.ndarray) -> np.ndarray:
    """Model units as the device holds them: what both sides start from."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def noisy(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return (as_float32(images) + sigma * rng.standard_normal(images.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def twins() -> np.ndarray:
    """400 smooth random 28x28 images; 40 have a twin three grey levels away in one pixel."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (400, 7, 7, 1))
    images = coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)
    images[360:] = images[:40]
    centre = images[360:, 14, 14, 0].astype(int)
    images[360:, 14, 14, 0] = np.where(centre < 250, centre + 3, centre - 3)
    return images


@pytest.mark.core
@pytest.mark.parametrize("sigma", [*GRID.tolist(), 0.05, 0.02, 0.01, 0.005], ids="{:.3g}".format)
def test_images_and_weights_agree_with_float64(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    denoiser = OptimalDenoiser.fit(twins, block_size=64)
    y = noisy(np.concatenate([twins[:24], twins[360:384]]), sigma, rng)
    p = brute_force(twins, y, sigma)
    x_hat = call(denoiser, y, jnp.float32(sigma))
    expected = p @ as_float32(twins).reshape(400, -1).astype(np.float64)
    # 1e-4 of the image range, which is 2.
    np.testing.assert_allclose(np.asarray(x_hat).reshape(48, -1), expected, atol=2e-4)
    named = call_posterior(denoiser, y, jnp.float32(sigma))
    expected_weights = np.take_along_axis(p, np.asarray(named.indices), 1)
    np.testing.assert_allclose(named.weights, expected_weights, atol=1e-4)
    # Beside them nothing of more weight was left out.
    np.testing.assert_array_less(p.max(1), np.asarray(named.weights).max(1) + 1e-4)


def test_a_plain_gemm_would_not_do(twins: np.ndarray, rng: np.random.Generator) -> None:
    # The same test without exact candidates must fail, or it tests nothing.
    sigma = 0.01
    y = noisy(twins[360:384], sigma, rng)
    bank = OptimalDenoiser.fit(twins).bank
    query = posterior._query(bank, jnp.asarray(y.reshape(24, -1)), jnp.full((24, 1), sigma), None)
    sums = posterior._scan(bank, query, exclude=None)
    expected = brute_force(twins, y, sigma) @ as_float32(twins).reshape(400, -1)
    error = np.abs(np.asarray(bank.center + sums.v / sums.s) - expected).max()
    assert error > 2e-4


@pytest.mark.parametrize("sigma", [20.0, 2.0, 0.3, 0.01])
def test_block_size_and_batch_do_not_matter(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    y = noisy(twins[:12], sigma, rng)
    lengths, found = [], []
    for block_size in (33, 64, 150, 400):
        denoiser = OptimalDenoiser.fit(twins, block_size=block_size)
        lengths.append(_scan_length(denoiser, y))
        found.append(np.asarray(call(denoiser, y, jnp.float32(sigma))))
        parts = [call(denoiser, y[i : i + 5], jnp.float32(sigma)) for i in range(0, 10, 5)]
        parts.append(call(denoiser, y[10:], jnp.float32(sigma)))
        found.append(np.concatenate(parts))
    assert lengths == [13, 7, 3, 1]  # the scan really had other lengths
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=2e-5)


def _scan_length(denoiser: OptimalDenoiser, y: np.ndarray) -> int:
    jaxpr = jax.make_jaxpr(lambda d, y: d(y, jnp.float32(50.0)))(denoiser, y)
    lengths = {int(part.split(" ")[0]) for part in str(jaxpr).split("length=")[1:]}
    assert len(lengths) == 1
    return lengths.pop()


def test_order_of_the_training_set_does_not_matter(
    twins: np.ndarray, rng: np.random.Generator
) -> None:
    y = noisy(twins[:12], 0.02, rng)
    order = rng.permutation(len(twins))
    a = call(OptimalDenoiser.fit(twins), y, jnp.float32(0.02))
    b = call(OptimalDenoiser.fit(twins[order], block_size=50), y, jnp.float32(0.02))
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_different_sigma_a_row(twins: np.ndarray, rng: np.random.Generator) -> None:
    sigmas = np.array([40.0, 0.9, 0.02], np.float32)
    y = noisy(twins[:3], 1.0, rng)
    denoiser = OptimalDenoiser.fit(twins)
    together = np.asarray(call(denoiser, y, jnp.asarray(sigmas)))
    for i, sigma in enumerate(sigmas):
        alone = np.asarray(call(denoiser, y[i : i + 1], jnp.float32(sigma)))[0]
        np.testing.assert_allclose(together[i], alone, atol=2e-5)
    assert np.abs(together[0] - together[2]).max() > 0.1


@pytest.mark.parametrize("sigma", [5.0, 0.5, 0.02])
def test_weights_and_images_of_weight_zero(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    weights = rng.uniform(size=400) * (rng.uniform(size=400) < 0.5)
    weights[:64] = 0  # a whole block of weight zero
    y = noisy(twins[:16], sigma, rng)
    denoiser = OptimalDenoiser.fit(twins, weights, block_size=64)
    expected = brute_force(twins, y, sigma, weights / weights.sum()) @ as_float32(twins).reshape(
        400, -1
    )
    np.testing.assert_allclose(
        np.asarray(call(denoiser, y, jnp.float32(sigma))).reshape(16, -1), expected, atol=2e-4
    )
    # Repeating an image is doubling its weight.
    double = np.where(np.arange(400) == 7, 2.0, 1.0)
    a = call(OptimalDenoiser.fit(np.concatenate([twins, twins[7:8]])), y, jnp.float32(sigma))
    b = call(OptimalDenoiser.fit(twins, double), y, jnp.float32(sigma))
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.optimized  # equal bit for bit, in two programs
@pytest.mark.parametrize("sigma", [30.0, 0.02])
def test_labels_restrict_the_training_set(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    # Sorted by class in blocks of 64, so that some blocks hold nothing of a label.
    labels = np.sort(rng.integers(0, 4, 400))
    y = noisy(twins[:8], sigma, rng)
    denoiser = OptimalDenoiser.fit(twins, labels=labels, block_size=64)
    assert denoiser.num_classes == 4
    for label in range(4):
        chosen = twins[labels == label]
        alone = call(OptimalDenoiser.fit(chosen), y, jnp.float32(sigma))
        together = call(denoiser, y, jnp.float32(sigma), jnp.full(8, label))
        np.testing.assert_allclose(together, alone, atol=2e-5)
        assert np.all(np.isfinite(together))
    null = call(denoiser, y, jnp.float32(sigma), jnp.full(8, 4))
    np.testing.assert_array_equal(null, call(denoiser, y, jnp.float32(sigma)))


def test_one_image_is_always_returned(twins: np.ndarray, rng: np.random.Generator) -> None:
    denoiser = OptimalDenoiser.fit(twins[:1])
    for sigma in (80.0, 1.0, 0.002):
        x_hat = call(denoiser, noisy(twins[:3], sigma, rng), jnp.float32(sigma))
        np.testing.assert_allclose(
            x_hat, np.broadcast_to(as_float32(twins[:1]), x_hat.shape), atol=1e-6
        )


def test_large_sigma_gives_the_mean_and_small_sigma_the_nearest(
    twins: np.ndarray, rng: np.random.Generator
) -> None:
    denoiser = OptimalDenoiser.fit(twins)
    y = noisy(twins[:4], 1e4, rng)
    mean = as_float32(twins).mean(0)
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(1e6))[0], mean, atol=1e-3)
    y = noisy(twins[:40], 0.002, rng)
    np.testing.assert_allclose(
        call(denoiser, y, jnp.float32(0.002)), as_float32(twins[:40]), atol=1e-6
    )


def test_float_toy_data_outside_the_unit_range() -> None:
    points = np.array([-2.0, 0.5, 3.0], np.float32).reshape(3, 1, 1, 1)
    y = np.linspace(-4, 4, 9).astype(np.float32).reshape(9, 1, 1, 1)
    x_hat = np.asarray(call(OptimalDenoiser.fit(points), y, jnp.float32(0.8))).ravel()
    logits = -((y.ravel()[:, None] - points.ravel()) ** 2).astype(np.float64) / (2 * 0.8**2)
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(x_hat, (p @ points.ravel()) / p.sum(1), atol=1e-5)


def test_no_float_copy_of_the_data_and_memory_that_does_not_grow(rng: np.random.Generator) -> None:
    y = jax.ShapeDtypeStruct((16, 12, 12, 1), jnp.float32)
    temporary = []
    for n in (4096, 8 * 4096):
        images = rng.integers(0, 256, (n, 12, 12, 1), dtype=np.uint8)
        denoiser = OptimalDenoiser.fit(images, block_size=512)
        sigma = jnp.float32(0.5)
        assert f"f32[{n},144]" not in str(jax.make_jaxpr(call)(denoiser, y, sigma))
        memory = call.lower(denoiser, y, sigma).compile().memory_analysis()
        assert memory is not None
        temporary.append(memory.temp_size_in_bytes)
    assert temporary[0] == temporary[1]


def test_two_fits_of_one_shape_compile_once(twins: np.ndarray) -> None:
    traces = 0

    @jax.jit
    def counted(denoiser: OptimalDenoiser, y: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return denoiser(y, jnp.float32(0.5))

    y = jnp.zeros((2, 28, 28, 1))
    a = counted(OptimalDenoiser.fit(twins[:200]), y)
    b = counted(OptimalDenoiser.fit(twins[200:]), y)
    assert traces == 1
    assert np.abs(np.asarray(a) - np.asarray(b)).max() > 0.01


bank_mean = jax.jit(posterior.posterior_mean)
bank_posterior = jax.jit(posterior.posterior)


def flat_query(y: np.ndarray, sigma: float) -> tuple[np.ndarray, jax.Array]:
    return y.reshape(len(y), -1), jnp.full((len(y), 1), sigma, jnp.float32)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("sigma", [40.0, 2.0, 0.3, 0.02, 0.005])
def test_values_are_weighed_in_place_of_the_images(
    kind: str, sigma: float, twins: np.ndarray, rng: np.random.Generator
) -> None:
    # Values that have nothing to do with the images, the mean not 0; twins' values differ by 1 or
    # so, and their images by three grey levels of a pixel.
    values = rng.integers(0, 200, (400, 3, 5, 1), dtype=np.uint8)
    model = as_float32(values)
    if kind == "float":
        values = model = (0.5 + rng.standard_normal((400, 15))).astype(np.float32)
    weights = rng.uniform(size=400) * (np.arange(400) % 3 > 0)
    weights[64:128] = 0  # a whole block
    bank = posterior.bank(twins, weights, values=values, block_size=64)
    assert bank.values is not None
    assert bank.values.dtype == values.dtype
    y = noisy(np.concatenate([twins[:24], twins[360:384]]), sigma, rng)
    expected = brute_force(twins, y, sigma, weights) @ model.reshape(400, -1).astype(np.float64)
    found = bank_mean(bank, *flat_query(y, sigma))
    # Logits good to 2e-4, values that differ by 4 or so at most.
    np.testing.assert_allclose(found, expected, atol=4e-4)
    named = bank_posterior(bank, *flat_query(y, sigma))
    np.testing.assert_allclose(named.mean, expected, atol=4e-4)
    # The weights are those of the images alone.
    plain = bank_posterior(posterior.bank(twins, weights, block_size=64), *flat_query(y, sigma))
    np.testing.assert_array_equal(named.weights, plain.weights)


def test_the_values_of_twins_blend_by_exact_logits(
    twins: np.ndarray, rng: np.random.Generator
) -> None:
    # Without exact candidates the values of twins are mixed wrongly: the refined way is taken.
    sigma = 0.01
    values = np.where(np.arange(400) < 360, 0.0, 1.0).astype(np.float32)
    bank = posterior.bank(twins, values=values)
    y, level = flat_query(noisy(twins[360:384], sigma, rng), sigma)
    query = posterior._query(bank, jnp.asarray(y), level, None)
    sums = posterior._scan(bank, query, exclude=None)
    assert bank.values_center is not None
    coarse = np.asarray(bank.values_center + sums.v / sums.s)
    expected = brute_force(twins, y, sigma)[:, 360:].sum(1, keepdims=True)
    assert np.abs(coarse - expected).max() > 1e-3
    np.testing.assert_allclose(bank_mean(bank, y, level), expected, atol=2e-4)
    # Both twins are there in some blend, or nothing was tested.
    assert np.any((expected > 0.1) & (expected < 0.9))


@pytest.mark.parametrize("sigma", [30.0, 0.02])
def test_labels_restrict_the_values(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    # Sorted by class in blocks of 64, so that some blocks hold nothing of a label.
    labels = np.sort(rng.integers(0, 4, 400))
    values = rng.standard_normal((400, 2)).astype(np.float32)
    y, level = flat_query(noisy(twins[:8], sigma, rng), sigma)
    wanted = np.array([0, 1, 2, 3, 0, 1, 2, -1])
    bank = posterior.bank(twins, labels=labels, values=values, block_size=64)
    found = bank_mean(bank, y, level, wanted)
    for i, label in enumerate(wanted):
        admitted = (labels == label) | (label < 0)
        p = brute_force(twins, y[i : i + 1], sigma, admitted)
        np.testing.assert_allclose(found[i], p[0] @ values.astype(np.float64), atol=4e-4)


@pytest.mark.parametrize("sigma", [5.0, 0.02])
def test_the_images_as_values_change_nothing(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    y, level = flat_query(noisy(twins[:12], sigma, rng), sigma)
    same = bank_mean(posterior.bank(twins, values=twins), y, level)
    np.testing.assert_array_equal(same, bank_mean(posterior.bank(twins), y, level))


@pytest.mark.parametrize("sigma", [50.0, 0.01])
def test_one_value_for_all_is_returned_as_it_is(
    twins: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    # Values are centred: a constant leaves nothing to be rounded.
    bank = posterior.bank(twins, values=np.full((400, 3), 123.4, np.float32), block_size=150)
    found = bank_mean(bank, *flat_query(noisy(twins[:4], sigma, rng), sigma))
    np.testing.assert_array_equal(found, np.full((4, 3), 123.4, np.float32))


def test_no_float_copy_of_the_values_and_memory_that_does_not_grow(
    rng: np.random.Generator,
) -> None:
    y, sigma = jax.ShapeDtypeStruct((16, 2), jnp.float32), jnp.full((16, 1), 0.05)
    temporary = []
    for n in (4096, 8 * 4096):
        codes = rng.standard_normal((n, 2)).astype(np.float32)
        values = rng.integers(0, 256, (n, 12, 12, 1), dtype=np.uint8)
        bank = posterior.bank(codes, values=values, block_size=512)
        assert f"f32[{n},144]" not in str(jax.make_jaxpr(bank_mean)(bank, y, sigma))
        memory = bank_mean.lower(bank, y, sigma).compile().memory_analysis()
        assert memory is not None
        temporary.append(memory.temp_size_in_bytes)
    # The blocks' numbers, 8 and 64 of four bytes, are all that grows.
    assert temporary[1] - temporary[0] <= 4 * 64
    # A block is as wide as the wider of codes and values: 2^22 / 144 rows.
    assert posterior.bank(codes, values=values).block_size == 29127


def test_values_of_another_number_are_refused(twins: np.ndarray) -> None:
    with pytest.raises(AssertionError, match="400"):
        posterior.bank(twins, values=twins[:399])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((3, 4, 4), np.uint8)}, r"images must have shape \[N, height"),
        ({"images": np.zeros((0, 4, 4, 1), np.uint8)}, "images must hold at least one image"),
        ({"images": np.full((3, 4, 4, 1), 2.0)}, r"images must lie in \[-1, 1\].*got \[2, 2\]"),
        ({"images": np.full((3, 4, 4, 1), np.nan)}, "images holds NaN"),
        ({"weights": [1.0, 2.0]}, r"weights must have shape \(3,\); got \(2,\)"),
        ({"weights": [1.0, -2.0, 1.0]}, "weights must be finite and not negative"),
        ({"weights": [0.0, 0.0, 0.0]}, "weights must not all be zero"),
        ({"labels": [0, 1]}, r"labels must have shape \(3,\); got \(2,\)"),
        ({"labels": [0, 2, 2]}, r"labels must name every class in 0 .. 2.*no image has \[1\]"),
        ({"labels": [0, 1, -1]}, r"labels must lie in 0 .. num_classes - 1; got -1 .. 1"),
        ({"block_size": 0}, "block_size must be at least 1; got 0"),
    ],
)
def test_bad_input_of_fit(arguments: dict, message: str) -> None:
    arguments = {"images": np.zeros((3, 4, 4, 1), np.uint8), **arguments}
    with pytest.raises(ValueError, match=message):
        OptimalDenoiser.fit(**arguments)


def test_wrong_dtypes_of_fit() -> None:
    with pytest.raises(TypeError, match="images must be uint8, or float in model units.*int64"):
        OptimalDenoiser.fit(np.zeros((3, 4, 4, 1), np.int64))
    with pytest.raises(TypeError, match="labels must be integers; got dtype float64"):
        OptimalDenoiser.fit(np.zeros((3, 4, 4, 1), np.uint8), labels=np.zeros(3))


def test_bad_input_of_a_call() -> None:
    denoiser = OptimalDenoiser.fit(np.zeros((3, 4, 4, 1), np.uint8))
    with pytest.raises(ValueError, match=r"y must be a float array \[B, 4, 4, 1\]; got float32"):
        denoiser(jnp.zeros((2, 4, 4)), jnp.float32(1.0))
    with pytest.raises(ValueError, match=r"sigma must be a scalar or \[2\]; got shape \(3,\)"):
        denoiser(jnp.zeros((2, 4, 4, 1)), jnp.ones(3))


@pytest.mark.parametrize("sigma", [0.02, 0.2, 0.4, 0.6325, 1.0, 5.0])
def test_the_gradient_is_the_posterior_covariance_at_every_level(sigma, rng):
    """d x_hat / dy = Cov(x | y) / sigma^2, on both sides of the level where leaders are refined."""
    images = rng.integers(0, 256, (32, 8, 8, 1)).astype(np.uint8)
    denoiser = OptimalDenoiser.fit(images)
    y = noisy(images[:3], sigma, rng)
    found = jax.jit(jax.grad(lambda y: denoiser(y, jnp.float32(sigma))[:, 4, 4, 0].sum()))(y)
    x = as_float32(images).reshape(32, -1).astype(np.float64)
    p = brute_force(images, y, sigma)
    mean = p @ x
    centred = x[None] - mean[:, None]
    covariance = np.einsum("bn,bnd,bn->bd", p, centred, centred[:, :, 4 * 8 + 4])
    # Weights are right to about 1e-4; values lie in [-1, 1].
    scale = max(1.0, np.abs(covariance).max() / sigma**2)
    np.testing.assert_allclose(found.reshape(3, -1), covariance / sigma**2, atol=5e-4 * scale)
