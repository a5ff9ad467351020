"""The table of measures: names, feature spaces, what is shared, what is left out and why."""

import inspect

import flax.linen as nn
import jax
import numpy as np
import pytest

import jdiff
from jdiff import metrics
from jdiff.study.measures import MEASURES, Subject, measure

SILENT = lambda name: None
# Of metrics.md; the two others compare several trainings.
OF_SWEEPS = {"effective_memorization", "two_split_agreement"}


@pytest.fixture(scope="module")
def digits():
    return jdiff.data.load("digits").subset(300, jax.random.key(0))


@pytest.fixture(scope="module")
def copies(digits):
    return Subject(digits.images[:60], digits)


def test_every_measure_of_samples_and_denoisers_is_in_the_table():
    three = ["generated", "train", "held_out"]
    public = {
        name
        for name in metrics.__all__
        if inspect.isfunction(getattr(metrics, name))
        and (parameters := list(inspect.signature(getattr(metrics, name)).parameters))
        and (parameters[:3] == three or parameters[0] == "denoiser")
    }
    # prdc is four of them at once; jacobian_eigen looks at one point.
    # agreements compares samples with those of closed forms from the same noise.
    assert public - {"prdc", "jacobian_eigen"} == set(MEASURES) - {"agreements"}
    assert OF_SWEEPS <= set(metrics.__all__)


def test_copies_in_numbers_that_are_known(copies):
    names = ["memorized_fraction", "nearest_rms", "calibrated_distance", "authenticity"]
    names += ["patch_sources", "mosaic_consistency", "precision"]
    found = measure(copies, names, say=SILENT).measures
    value = {key: m.value for key, m in found.items()}
    assert value["memorized_fraction"] == value["memorized_fraction_half"] == 1
    assert value["nearest_rms"] == 0
    assert value["calibrated_distance"] == 1
    assert value["authenticity"] == 0
    assert value["mosaic_consistency"] == 1
    assert value["precision"] == 1
    assert value["patch_sources"] < 1.1  # equal tiles of two images are possible
    assert found["patch_sources"].constants["side"] == 4
    control = found["memorized_fraction"].control
    assert control is not None
    assert control < 0.1


def test_what_is_shared_gives_what_the_measures_give_alone(digits):
    subject = Subject(digits.held_out[:60], digits)
    names = ["memorized_fraction", "calibrated_distance", "precision", "recall", "coverage"]
    found = measure(subject, names, say=SILENT).measures
    arrays = (digits.held_out[:60], digits.images, digits.held_out)
    for name in names:
        alone = getattr(metrics, name)(*arrays)
        assert found[name].to_dict() == alone.to_dict(), name


def test_a_feature_space_is_in_key_and_name(digits):
    space = lambda x: np.asarray(x, np.float32).reshape(len(x), -1)[:, ::4]
    subject = Subject(digits.images[:60], digits, spaces={"fourth": space})
    found = measure(subject, ["frechet_distance", "copy_rate", "vendi"], say=SILENT).measures
    assert set(found) == {
        *("frechet_distance", "frechet_distance (fourth)", "vendi", "vendi (fourth)"),
        *("copy_rate (fourth)", "copy_rate_0.6 (fourth)"),  # on pixels it says nothing
    }
    assert str(found["frechet_distance (fourth)"]).startswith("Fréchet distance (fourth) = ")
    assert str(found["frechet_distance"]).startswith("pixel Fréchet distance = ")
    alone = metrics.vendi(*(space(x) for x in subject.arrays()))
    assert found["vendi (fourth)"].value == alone.value


def test_measures_of_a_denoiser(digits):
    denoiser = jdiff.LinearDenoiser.fit(digits.images)
    small = Subject(digits.images[:40], digits, denoiser)
    found = measure(small, ["psnr_gap", "explained_by", "equivariance_error"], say=SILENT).measures
    assert found["explained_by linear determination"].value == pytest.approx(np.ones(9), abs=1e-6)
    assert np.all(found["explained_by optimal determination"].value[-1] < 0.9999)
    assert found["psnr_gap"].value.shape == (9,)
    assert [k for k in found if k.startswith("equivariance")] == [
        "equivariance_error step 1", "equivariance_error step 2"
    ]  # fmt: skip


def test_a_constant_sample_leaves_out_its_pair_and_is_counted(digits):
    denoiser = jdiff.LinearDenoiser.fit(digits.images)
    redraw = lambda other: digits.held_out[:40] / np.float32(127.5) - 1
    samples = digits.images[:40].copy()
    samples[3] = 0
    take = lambda x: measure(
        Subject(x, digits, denoiser, redraw=redraw), ["agreements"], say=SILENT
    ).measures["explained_by samples of linear pearson_r"]
    found = take(samples)
    assert found.constants["constant_pairs_left_out"] == 1
    assert found.n == 39
    rest = metrics.pearson_r(
        np.delete(digits.images[:40], 3, 0), np.delete(digits.held_out[:40], 3, 0)
    )
    assert found.value == pytest.approx(rest.value, rel=1e-6)


def test_shifts_that_the_image_has_no_room_for_are_left_out(digits):
    class Halving(nn.Module):
        halvings = 3

        @nn.compact
        def __call__(self, x, c_noise, labels=None, train=False):
            return x

    denoiser = jdiff.NetworkDenoiser.create(Halving(), {}, digits.image_shape, data_std=0.5)
    small = Subject(digits.images[:40], digits, denoiser)
    assert list(measure(small, ["equivariance_error"], say=SILENT).measures) == [
        "equivariance_error step 1"  # 8 pixels are the whole image: the shift is none
    ]


def test_levels_are_the_denoisers_own(digits):
    fitted = jdiff.denoisers.PolynomialDenoiser.fit(
        digits.images[:, ::4, ::4], 1, jdiff.noise.karras(18)
    )
    levels = Subject(digits.images[:40], digits, fitted).levels
    assert len(levels) == 9
    assert set(levels.astype(np.float32)) <= set(np.asarray(fitted.sigmas))


def test_what_cannot_be_taken_is_left_out_with_its_reason():
    toy = jdiff.data.load("toy:two_moons")
    subject = Subject(toy.images[:60], toy)
    found = measure(subject, say=SILENT)
    assert "spectrum_distance" in found.skipped
    assert "patch_sources" in found.skipped
    assert "measure of a denoiser" in found.skipped["psnr_gap"]
    assert "memorized_fraction" in found.measures
    assert not set(found.skipped) & set(found.measures)
    # Asked for by name it is an error.
    with pytest.raises(ValueError, match="measure spectrum_distance cannot be taken: "):
        measure(subject, ["spectrum_distance"], say=SILENT)
    with pytest.raises(ValueError, match="psnr_gap cannot be taken: it is a measure of a denoiser"):
        measure(subject, ["psnr_gap"], say=SILENT)


def test_names_are_checked(copies):
    with pytest.raises(ValueError, match=r"measure is 'precison'. Did you mean 'precision'"):
        measure(copies, ["precison"], say=SILENT)
    with pytest.raises(ValueError, match="measures must not repeat; got vendi more than once"):
        measure(copies, ["vendi", "vendi"], say=SILENT)


def test_a_training_set_of_one_image_has_no_second_neighbour(digits):
    one = jdiff.data.from_arrays(digits.images[:1], held_out=digits.held_out)
    with pytest.raises(ValueError, match="at least two distinct images, or d2 does not exist"):
        measure(Subject(digits.images[:60], one), ["memorized_fraction"], say=SILENT)
