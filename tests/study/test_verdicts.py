"""The verdicts that are known: on real digits optimal copies, linear fails, real images create."""

import numpy as np
import pytest

from jdiff import data, metrics
from jdiff.study import Study, run


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    study = Study("digits", architectures=("optimal", "linear"), num_samples=100)
    rows = run(study, tmp_path_factory.mktemp("digits") / "out", progress=False)
    return {row.label: row.record for row in rows}


@pytest.mark.core
def test_the_optimal_denoiser_memorizes_digits(verdicts):
    record = verdicts["optimal"]
    assert record["verdict"]["word"] == "memorizes"
    assert record["measures"]["memorized_fraction"]["value"] > 0.95
    assert record["measures"]["nearest_rms"]["value"] < 0.01


@pytest.mark.core
def test_the_linear_denoiser_is_unrealistic_on_digits(verdicts):
    record = verdicts["linear"]
    assert record["verdict"]["word"] == "unrealistic"
    assert record["measures"]["memorized_fraction"]["value"] == 0
    # It has the data's mean and covariance, and so a small Fréchet distance: precision decides.
    frechet = record["measures"]["frechet_distance"]
    assert frechet["value"] < 2 * frechet["control"]
    assert "recision" in record["verdict"]["reason"]


@pytest.mark.core
def test_held_out_digits_offered_as_samples_create():
    digits = data.load("digits")
    offered, control = digits.held_out[:180], digits.held_out[180:]
    measured = [
        measure(offered, digits.images, control)
        for measure in (metrics.memorized_fraction, metrics.precision, metrics.frechet_distance)
    ]
    assert metrics.verdict({m.name: m for m in measured}).word == "creates"


@pytest.mark.core
def test_training_digits_offered_as_samples_memorize(rng: np.random.Generator):
    digits = data.load("digits")
    copies = digits.images[rng.permutation(1437)[:180]]
    measured = [
        measure(copies, digits.images, digits.held_out)
        for measure in (metrics.memorized_fraction, metrics.precision, metrics.frechet_distance)
    ]
    assert metrics.verdict({m.name: m for m in measured}).word == "memorizes"
