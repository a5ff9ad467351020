import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.metrics import spectrum
from jdiff.metrics.draws import drawn
from jdiff.metrics.spectrum import radial_spectrum, spectrum_distance


def loop_spectrum(images: np.ndarray) -> np.ndarray:
    """P(r) of images on [0, 1], from sums of cosines and sines written out in float64."""
    _, h, w, channels = images.shape
    sums: dict[int, list[float]] = {}
    y, x = np.indices((h, w))
    for u in range(-((h - 1) // 2), h // 2 + 1):
        for v in range(-((w - 1) // 2), w // 2 + 1):
            wave = np.exp(-2j * np.pi * (u * y / h + v * x / w))
            amplitudes = np.einsum("nhwc,hw->nc", images, wave)
            r = round(float(np.hypot(u / h, v / w) * max(h, w)))
            sums.setdefault(r, []).append(float(np.mean(np.abs(amplitudes) ** 2)) / (h * w))
    return np.array([np.mean(sums[r]) for r in sorted(sums)])


@pytest.mark.core
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 7, 3), (6, 9, 2), (1, 5, 1), (2, 1, 1)])
def test_radial_spectrum_is_a_sum_of_waves(shape, rng):
    images = rng.integers(0, 256, (5, *shape), dtype=np.uint8)
    found = radial_spectrum(images)
    np.testing.assert_allclose(found.power, loop_spectrum(images / 255.0), rtol=2e-5)
    np.testing.assert_allclose(found.frequency, np.arange(len(found.power)) / max(shape[:2]))
    # Parseval: the mean of all powers is the mean square.
    assert found.total == pytest.approx(np.mean((images / 255.0) ** 2), rel=1e-6)
    assert found.n == 5


def test_white_noise_is_flat_and_a_constant_is_at_0(rng):
    noise = rng.normal(0, 0.2, (4000, 8, 8, 1)) * 2 - 1  # deviation 0.2 about 0 on [0, 1]
    # 4000 powers with one degree of freedom at the corner: deviation sqrt(2 / 4000). Five of them.
    np.testing.assert_allclose(radial_spectrum(noise).power, 0.04, rtol=5 * np.sqrt(2 / 4000))
    # A quarter on [0, 1], whose sums and square float32 holds exactly.
    flat = radial_spectrum(np.full((3, 8, 8, 2), -0.5, np.float32))
    assert flat.power[0] == pytest.approx(64 * 0.0625, rel=1e-6)
    assert np.all(flat.power[1:] < 1e-12)


def test_weak_detail_beside_a_bright_mean_is_kept(rng):
    # Amplitude 1e-4 on a mean of 1: a float32 transform of the images as they are leaks 1e-7 of
    # 784 into each frequency, 1 % of these amplitudes.
    noise = rng.normal(0, 1e-4, (50, 28, 28, 1)).astype("f4")
    images = (np.float32(1) - noise).astype("f4")
    unit = (images + np.float32(1)) / np.float32(2)
    expected = loop_spectrum(unit.astype("f8"))
    np.testing.assert_allclose(radial_spectrum(images).power, expected, rtol=1e-4)


def test_spectrum_distance_is_the_definition(digits):
    train, held_out = digits
    noise = np.random.default_rng(3).normal(0, 0.3, (200, 8, 8, 1))
    generated = (train[:200] / 127.5 - 1 + noise).astype("f4")
    found = spectrum_distance(generated, train, held_out)
    others = held_out[drawn(held_out, 200)] / 255.0
    p, q, t = (loop_spectrum(x) for x in ((generated + 1.0) / 2, others, train / 255.0))
    assert found.value == pytest.approx(np.linalg.norm(np.log(p / t)), rel=1e-4)
    assert found.control == pytest.approx(np.linalg.norm(np.log(q / t)), rel=1e-4)
    some = (generated[drawn(generated, 200)] + 1.0) / 2
    parts = [np.delete(some, range(20 * i, 20 * i + 20), 0) for i in range(10)]
    left_out = np.array([np.linalg.norm(np.log(loop_spectrum(x) / t)) for x in parts])
    half = 2.26 * np.sqrt(0.9 * np.square(left_out - left_out.mean()).sum())
    assert found.interval == pytest.approx((found.value - half, found.value + half), rel=1e-3)
    assert found.constants == {
        "part_size": 20, "num_radii": 7, "floor": 1e-6, "num_train": 1437,
    }  # fmt: skip
    assert found.value > 5 * np.linalg.norm(np.log(q / t))


def test_nothing_below_the_floor_counts(rng):
    train = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    floor = 1e-6 * np.mean((train / 255.0) ** 2)
    t = loop_spectrum(train / 255.0)
    grey = np.full((20, 8, 8, 1), 128, np.uint8)  # no power but at 0
    found = spectrum_distance(grey, train, train)
    differences = np.log(np.concatenate([[64 * (128 / 255) ** 2], [floor] * 6]) / t)
    assert found.value == pytest.approx(np.linalg.norm(differences), rel=1e-5)
    # Every image is the same.
    assert found.interval == pytest.approx((found.value, found.value), rel=1e-6)


def test_known_spectrum_changes_nothing_and_is_used(digits):
    train, held_out = digits
    known = radial_spectrum(train)
    found = spectrum_distance(held_out, train, held_out)
    assert found == spectrum_distance(held_out, train, held_out, train_spectrum=known)
    other = known._replace(power=known.power * 2)
    assert found != spectrum_distance(held_out, train, held_out, train_spectrum=other)


def test_n_are_drawn_and_their_order_does_not_matter(digits, rng):
    train, held_out = digits
    generated = train[:100] // 2
    found = spectrum_distance(generated, train, held_out)
    assert found.n == 100
    p = rng.permutation(100)
    other = spectrum_distance(generated[p], train[rng.permutation(1437)], held_out)
    assert other.value == pytest.approx(found.value, rel=1e-6)


def test_block_size_does_not_matter(digits, monkeypatch):
    train, _ = digits
    kernel, sizes = spectrum._image_spectra, []

    def spy(images, averages, **static):
        sizes.append(images.shape[0])
        return kernel(images, averages, **static)

    monkeypatch.setattr(spectrum, "_image_spectra", spy)
    whole = radial_spectrum(train)
    monkeypatch.setattr(spectrum, "VALUES", 64 * 500)
    blocks = radial_spectrum(train)
    assert sizes == [1437, 500, 500, 500]  # the last padded
    # Seven sums of at most 18 float32 terms.
    np.testing.assert_allclose(blocks.power, whole.power, rtol=1e-6)


def test_interval_covers_the_expected_value(rng):
    # Three binomial deviations of 0.95 at 100 repetitions are 0.065.
    train = rng.normal(0, 0.2, (300, 6, 6, 1)).clip(-1, 1)
    held_out = rng.normal(0, 0.2, (100, 6, 6, 1)).clip(-1, 1)
    contrast = lambda: np.exp(0.3 * rng.normal(size=(100, 1, 1, 1)))
    known = radial_spectrum(train)
    found = [
        spectrum_distance(
            rng.normal(0, 0.3, (100, 6, 6, 1)) * contrast(), train, held_out, train_spectrum=known
        )
        for _ in range(100)
    ]
    values, ends = np.array([f.value for f in found]), np.array([f.interval for f in found])
    covered = np.mean((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1]))
    assert covered >= 0.95 - 0.065
    assert np.mean(ends[:, 1] - ends[:, 0]) < 8 * values.std()


def test_kernel_without_jit_at_full_precision(rng):
    images = rng.integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    averages = np.full((25, 2), 0.04, np.float32)
    args = jnp.asarray(images), jnp.asarray(averages)
    compiled = spectrum._image_spectra(*args)
    with jax.disable_jit():
        eager = spectrum._image_spectra(*args)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    text = str(jax.make_jaxpr(spectrum._image_spectra)(*args))
    assert text.count("dot_general") == text.count("precision=(Precision.HIGHEST") == 1


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(platform):
    shapes = jax.ShapeDtypeStruct((64, 32, 32, 3), "u1"), jax.ShapeDtypeStruct((1024, 24), "f4")
    traced = spectrum._image_spectra.trace(*shapes)
    assert traced.lower(lowering_platforms=(platform,)).as_text()


I = np.full((12, 3, 3, 1), 9, np.uint8)
OTHER = radial_spectrum(I[:5])


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ((I[:9], I, I), {}, "generated must hold at least 10 samples; got 9"),
        ((I, I, I[:9]), {}, "held_out must hold at least 10 samples; got 9"),
        ((I[:, :1, :1],) * 3, {}, r"train must be images .* of more than one pixel.* \(12, 1, 1"),
        ((I[:, :, 0, 0] / 9.0,) * 3, {}, r"train must be images .*; got shape \(12, 3\)"),
        ((I, I * 0, I), {}, "train must not be black everywhere"),
        (
            (I, I, I), {"train_spectrum": OTHER},
            "train_spectrum must be .* of 12 images at 2 radii; got that of 5 at 2",
        ),
        (
            (I, I, I), {"train_spectrum": radial_spectrum(np.full((12, 9, 9, 1), 9, np.uint8))},
            "of 12 images at 2 radii; got that of 12 at 7",
        ),
        ((I / 9.0 * np.nan, I, I), {}, "generated must be finite"),
    ],
)  # fmt: skip
def test_refuses(arrays, options, words):
    with pytest.raises(ValueError, match=words):
        spectrum_distance(*arrays, **options)


@pytest.mark.parametrize("images", [np.zeros((3, 4)), np.zeros((3, 1, 1, 2))])
def test_radial_spectrum_refuses(images):
    with pytest.raises(ValueError, match="images must be images .* of more than one pixel"):
        radial_spectrum(images)
