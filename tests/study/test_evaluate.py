"""Samples judged: from arrays, from files and folders, and from runs."""

import json

import jax
import numpy as np
import pytest

import jdiff
from jdiff import _pixels
from jdiff.study import evaluate, evaluate_run, evaluate_samples
from jdiff.study.config import Architecture
from jdiff.study.single import train

JUDGED = ("memorized_fraction", "precision", "frechet_distance")
_RNG = np.random.default_rng(0)
FLOATS = _RNG.integers(0, 2, (20, 8, 8, 1)) + _RNG.normal(0, 0.02, (20, 8, 8, 1))
FLOATS = FLOATS.astype(np.float32)
QUICK = {"names": JUDGED, "features": (), "progress": False}


@pytest.fixture(scope="module")
def digits():
    return jdiff.data.load("digits")


@pytest.fixture(scope="module")
def models(digits):
    """Samples whose answer is known: copies, a Gaussian, real digits."""
    law = jdiff.theory.continuous_law(jdiff.LinearDenoiser.fit(digits.images), sigma_max=80.0)
    return {
        "memorizes": digits.images[100:300],
        "unrealistic": np.asarray(law.sample(jax.random.key(0), 200)),
        "creates": digits.held_out[:200],
    }


@pytest.mark.parametrize("word", ["memorizes", "unrealistic", "creates"])
def test_the_verdict_is_right_where_the_answer_is_known(word, models, digits):
    found = evaluate(models[word], digits, **QUICK)
    assert found.verdict is not None
    assert found.verdict.word == word
    # Never without its numbers, the control's among them.
    decided = found.measures["precision" if word == "unrealistic" else "memorized_fraction"]
    for number in (decided.value, decided.control):
        text = f"{number:.2f}" if word == "unrealistic" else f"{number:.1%}"
        assert text in found.verdict.reason


def test_half_copies_are_half(models, digits):
    half = np.concatenate([models["memorizes"][:100], models["creates"][:100]])
    found = evaluate(half, digits, **QUICK)
    assert found.measures["memorized_fraction"].value == 0.5


def test_pictures_are_of_the_right_images(models, digits):
    samples = np.concatenate([models["memorizes"][:20], models["creates"][:20]])
    names = (*JUDGED, "patch_sources", "spectrum_distance")
    arrays = evaluate(samples, digits, names=names, features=(), progress=False).arrays
    train = _pixels.to_model(digits.images)
    # The most copied are copies, the most novel are not; sources are the nearest images.
    assert np.all(arrays["copied_ratio"] == 0)
    np.testing.assert_array_equal(arrays["copied"], arrays["copied_source"])
    flat = train.reshape(len(train), -1).astype(np.float64)
    for image, nearest, rms in zip(
        arrays["novel"], arrays["novel_nearest"], arrays["novel_rms"], strict=True
    ):
        away = np.linalg.norm(flat - image.reshape(-1), axis=1)
        np.testing.assert_array_equal(nearest, train[np.argmin(away)])
        # On [0, 1] a difference is half of that in model units.
        assert rms == pytest.approx(away.min() / 2 / 8, rel=1e-5)
    # Copies are put together again from themselves.
    whole = np.array([len(np.unique(s)) == 1 for s in arrays["mosaic_sources"]])
    assert arrays["mosaic_sources"].shape == (8, 2, 2)
    assert 2 <= whole.sum() <= 6  # some copies, some not
    np.testing.assert_array_equal(arrays["mosaic_images"][whole], arrays["mosaic_samples"][whole])
    assert not np.array_equal(arrays["mosaic_images"][-1], arrays["mosaic_samples"][-1])
    assert arrays["spectrum_generated"].shape == arrays["frequency"].shape


def test_files_folders_and_ranges_say_the_same(models, digits, tmp_path):
    import PIL.Image

    samples = models["creates"][:40]
    np.savez(tmp_path / "byte.npz", images=samples)
    np.savez(tmp_path / "model.npz", images=_pixels.to_model(samples))
    np.savez(tmp_path / "unit.npz", images=_pixels.to_unit(samples))
    np.savez(tmp_path / "floats.npz", images=samples.astype(np.float32))
    (tmp_path / "pngs").mkdir()
    for i, image in enumerate(samples):
        PIL.Image.fromarray(image[..., 0]).save(tmp_path / "pngs" / f"{i:03}.png")
    ranges = {"unit.npz": "unit", "floats.npz": "byte"}
    values = {}
    for name in ("byte.npz", "model.npz", "unit.npz", "floats.npz", "pngs"):
        found = evaluate_samples(
            tmp_path / name,
            "digits",
            tmp_path / "out" / name,
            value_range=ranges.get(name),
            **QUICK,
        )
        values[name] = [found.measures[measure].value for measure in JUDGED]
    for name, value in values.items():
        # Floats round once more on their way to [0, 1].
        assert value == pytest.approx(values["byte.npz"], rel=1e-5), name


def test_what_is_written_can_be_read_and_shown(models, tmp_path):
    np.savez(tmp_path / "a.npz", images=models["memorizes"][:40])
    found = evaluate_samples(
        tmp_path / "a.npz", "digits", tmp_path / "out", command="jdiff evaluate ...", **QUICK
    )
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record == found.record
    assert record["command"] == "jdiff evaluate ..."
    assert record["samples"] == {"num": 40, "source": "a.npz"}
    assert record["verdict"]["word"] == "memorizes"
    assert record["measures"]["memorized_fraction"]["value"] == 1
    with np.load(tmp_path / "out" / "evaluation.npz") as arrays:
        np.testing.assert_array_equal(arrays["ratio"], found.arrays["ratio"])
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "memorizes" in page
    assert "100.0" in str(found)
    with pytest.raises(FileExistsError, match=r"evaluation.json is there already; --force"):
        evaluate_samples(tmp_path / "a.npz", "digits", tmp_path / "out", **QUICK)
    evaluate_samples(tmp_path / "a.npz", "digits", tmp_path / "out", force=True, **QUICK)


def test_a_run_is_held_against_the_subset_that_it_was_fitted_to(tmp_path):
    run = tmp_path / "run"
    config = jdiff.TrainConfig()
    train(Architecture.parse("optimal"), "digits", run, config, num_train=120, seed=3)
    found = evaluate_run(run, num=40, **QUICK)
    assert found.record["data"]["num_train"] == 120
    assert found.verdict is not None
    assert found.verdict.word == "memorizes"
    assert found.record["samples"]["solver"] == "heun"
    assert (run / "evaluation.html").exists()
    with pytest.raises(ValueError, match="data toy:two_moons is not what .* was made from"):
        evaluate_run(run, num=40, spec="toy:two_moons", force=True, **QUICK)


def test_the_samples_that_a_study_drew_are_those_that_are_judged(tmp_path):
    study = jdiff.study.Study(
        "small", "digits", ("linear",), num_train=(150,), num_samples=40, seeds=(0,)
    )
    jdiff.study.run(study, tmp_path, progress=False)
    (run,) = (tmp_path / "runs").iterdir()
    found = evaluate_run(run, **QUICK)
    row = json.loads((run / "row.json").read_text())["record"]["measures"]
    for name in JUDGED:
        assert found.measures[name].value == pytest.approx(row[name]["value"], rel=1e-6)
    assert found.record["samples"]["source"] == "samples.npz"
    # Others are drawn when asked for.
    other = evaluate_run(run, num=30, solver="ddim", force=True, **QUICK)
    assert other.record["samples"]["num"] == 30
    assert other.record["samples"]["solver"] == "ddim"


@pytest.mark.parametrize(
    ("images", "value_range", "message"),
    [
        (np.zeros((5, 8, 8, 1), np.uint8), None, "samples must hold at least 20 samples; got 5"),
        (np.zeros((20, 8, 8, 3), np.uint8), None, r"shape of the data's images, 8x8x1; got 8x8x3"),
        (np.full((20, 8, 8, 1), np.nan, np.float32), None, "samples must be finite"),
        # Ranges of unclipped floats: a few values lie outside.
        (FLOATS, None, r"say by value_range what their range is \(unit, it seems\)"),
        (255 * FLOATS, None, r"say by value_range .* \(byte, it seems\)"),
        (100 * (FLOATS - 0.5), None, r"most lie in .* say by value_range what their range is:"),
        (FLOATS, "byte", r"must mostly lie in \[0, 255\] for value_range byte"),
        (2 * FLOATS - 1, "unit", r"must mostly lie in \[0, 1\] for value_range unit"),
        (np.zeros((20, 8, 8, 1), np.uint8), "unit", "value_range of uint8 samples is byte"),
        (np.zeros((20, 8, 8, 1), np.uint8), "units", "value_range is 'units'. Did you mean 'unit'"),
        (np.zeros((20, 8, 8, 1), np.int64), None, "samples must be uint8, or float"),
    ],
    ids=str,
)
def test_bad_samples(images, value_range, message, tmp_path):
    np.savez(tmp_path / "a.npz", images=images)
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate_samples(
            tmp_path / "a.npz", "digits", tmp_path / "out", value_range=value_range, **QUICK
        )
    assert not (tmp_path / "out").exists()


def test_sorted_samples_are_judged_as_shuffled_ones(digits):
    """A folder of somebody's samples is often sorted by class; so are held-out images."""
    order = np.argsort(digits.labels[:700], kind="stable")
    real = digits.images[:700]
    rest = jdiff.data.from_arrays(digits.images[700:], held_out=digits.held_out)
    backwards = jdiff.data.from_arrays(digits.images[700:], held_out=digits.held_out[::-1])
    found = [
        evaluate(x, data, names=(*JUDGED, "recall", "coverage"), features=(), progress=False)
        for x, data in ((real, rest), (real[order], rest), (real, backwards))
    ]
    # The sums of float64 differ by their order.
    for other in found[1:]:
        assert other.verdict is not None
        assert other.verdict.word == "creates"
        for name, one in found[0].measures.items():
            theirs = other.measures[name]
            for field in ("value", "interval", "control", "control_interval"):
                np.testing.assert_allclose(
                    getattr(theirs, field), getattr(one, field), rtol=1e-9, err_msg=name
                )


def test_held_out_images_that_were_trained_on_are_no_control(digits):
    copies = digits.images[:300]
    same = jdiff.data.from_arrays(copies, held_out=copies)
    with pytest.raises(ValueError, match="300 of 300 of arrays are, and say nothing as a control"):
        evaluate(copies[:40], same, **QUICK)
    few = jdiff.data.from_arrays(
        digits.images, held_out=np.concatenate([digits.held_out, digits.images[:5]])
    )
    notes = evaluate(copies[:40], few, **QUICK).record["notes"]
    assert notes[0].startswith("5 of 365 held-out images are exact repeats of training images")


def test_a_training_set_of_one_image_is_refused(digits):
    one = jdiff.data.from_arrays(np.repeat(digits.images[:1], 9, 0), held_out=digits.held_out)
    with pytest.raises(ValueError, match="two different training images, or d2 does not exist"):
        evaluate(digits.held_out[:40], one, **QUICK)


def test_too_few_samples_and_repeats_are_refused_before_anything_is_drawn(tmp_path, digits):
    run = tmp_path / "run"
    train(Architecture.parse("linear"), "digits", run, jdiff.TrainConfig())
    for num in (0, 5):
        with pytest.raises(ValueError, match=f"num must be at least 20; got {num}"):
            evaluate_run(run, num=num, **QUICK)
    repeated = {"names": ("vendi", "vendi"), "progress": False}
    with pytest.raises(ValueError, match="measures must not repeat; got vendi more than once"):
        evaluate_run(run, num=40, **repeated)
    with pytest.raises(ValueError, match="features must not repeat; got pca 8 more than once"):
        evaluate(
            digits.held_out[:40],
            digits,
            names=JUDGED,
            features=("pca:dim=8", "pca:dim=8"),
            progress=False,
        )


def test_samples_are_held_against_closed_forms_from_their_own_noise(tmp_path):
    run = tmp_path / "run"
    train(Architecture.parse("linear"), "digits", run, jdiff.TrainConfig(), num_train=200)
    quiet = {"features": (), "progress": False}
    found = evaluate_run(run, num=40, names=("agreements",), **quiet).measures
    # The same denoiser from the same noise gives the same samples, another does not.
    assert found["explained_by samples of linear determination"].value == pytest.approx(1, abs=1e-6)
    assert found["explained_by samples of optimal determination"].value < 0.9


def test_bad_places(tmp_path, digits):
    one = lambda path: evaluate_samples(path, "digits", tmp_path / "out", **QUICK)
    with pytest.raises(FileNotFoundError, match=r"nope.npz is neither a file nor a folder"):
        one(tmp_path / "nope.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is empty; it must hold PNG or JPEG files"):
        one(tmp_path / "empty")
    np.savez(tmp_path / "other.npz", pictures=digits.images)
    with pytest.raises(ValueError, match="other.npz must hold 'images'; it holds pictures"):
        one(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(ValueError, match=r"text.npz cannot be read as an npz file"):
        one(tmp_path / "text.npz")
    (tmp_path / "a.txt").write_text("no")
    with pytest.raises(ValueError, match=r"must be a .npz file or a folder of images"):
        one(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="is not a run: it has no config.json"):
        evaluate_run(tmp_path / "empty", **QUICK)


def test_weighted_data_is_refused(digits):
    weights = np.ones(digits.num_train)
    weighted = jdiff.data.from_arrays(digits.images, held_out=digits.held_out, weights=weights)
    with pytest.raises(ValueError, match="data has weights, which the measures of a study"):
        evaluate(digits.held_out[:40], weighted, **QUICK)
