"""What every measure of samples promises; a new one is added to MEASURES."""

import json

import numpy as np
import pytest

from jdiff import metrics

MEASURES = [
    metrics.memorized_fraction,
    metrics.nearest_rms,
    metrics.precision,
    metrics.frechet_distance,
    metrics.recall,
    metrics.density,
    metrics.coverage,
    metrics.kernel_distance,
    metrics.spectrum_distance,
    metrics.vendi,
    metrics.calibrated_distance,
    metrics.authenticity,
    metrics.patch_sources,
    metrics.mosaic_consistency,
]

OF_PICTURES = [metrics.spectrum_distance, metrics.patch_sources, metrics.mosaic_consistency]


@pytest.fixture(params=MEASURES, ids=lambda measure: measure.__name__)
def measure(request):
    return request.param


@pytest.fixture
def arrays(digits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train, held_out = digits
    noise = np.random.default_rng(2).normal(0, 0.4, (120, 8, 8, 1))
    generated = (train[:120] / 127.5 - 1 + noise).astype(np.float32)
    return generated, train[200:800], held_out[:120]


@pytest.mark.core
def test_value_interval_control_and_name(measure, arrays):
    found = measure(*arrays)
    assert found.name == measure.__name__
    assert found.features == "pixels"
    assert found.n == 120
    for value, (low, high) in (
        (found.value, found.interval),
        (found.control, found.control_interval),
    ):
        assert low <= value <= high
    assert "pixel" in str(found)
    assert "\n" not in str(found)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_held_out_images_are_their_own_control(measure, arrays):
    _, train, held_out = arrays
    found = measure(held_out, train, held_out)
    assert found.value == found.control
    assert found.interval == found.control_interval


def test_order_of_samples_and_training_images_does_not_matter(measure, arrays, rng):
    generated, train, held_out = arrays
    found = measure(generated, train, held_out)
    p, s = rng.permutation(len(generated)), rng.permutation(len(train))
    if measure in (metrics.patch_sources, metrics.mosaic_consistency):
        s = np.arange(len(train))  # of training tiles that fit equally well the first is the source
    other = measure(generated[p], train[s], held_out[p])
    # Sums in another order, in float64; of a Fréchet distance the roots of eigenvalues that are 0
    # but for rounding (border pixels), 1e-8 each.
    assert other.value == pytest.approx(found.value, rel=1e-7)
    assert other.control == pytest.approx(found.control, rel=1e-7)
    if found.per_sample is not None:
        np.testing.assert_array_equal(other.per_sample, found.per_sample[p])


def test_images_are_measured_as_their_unit_pixels(measure, arrays):
    if measure in OF_PICTURES:
        pytest.skip("features are no pictures")
    generated, train, held_out = arrays
    flat = [(x / np.float32(255) if x.dtype == np.uint8 else (x + 1) / 2) for x in arrays]
    features = measure(*(x.reshape(len(x), -1) for x in flat))
    pixels = measure(generated, train, held_out)
    assert features.features == "features"
    assert features.value == pixels.value
    assert features.interval == pixels.interval


def test_the_arguments_are_left_alone(measure, arrays):
    copies = [x.copy() for x in arrays]
    measure(*arrays)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("position", "change", "words"),
    [
        (0, lambda x: np.where(x > 0, np.nan, x), "generated must be finite .* of 120 samples"),
        (1, lambda x: x.astype(np.float32), r"train must lie in \[-1, 1\]"),
        (0, lambda x: x[:, :4], "generated must have the trailing shape of train"),
        (2, lambda x: x.reshape(len(x), -1) / 255, "held_out must have the trailing shape"),
        (0, lambda x: (x + 1) * 127.5 * (x > -1), "generated must be in model units"),
    ],
    ids=["nan", "0..255 train", "shape", "rank", "0..255"],
)
def test_bad_input_is_refused(measure, arrays, position, change, words):
    given = list(arrays)
    given[position] = change(given[position])
    with pytest.raises(ValueError, match=words):
        measure(*given)
