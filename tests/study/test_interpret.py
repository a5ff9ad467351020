"""What explains a network: closed forms explain themselves, and each is sampled once."""

import json

import jax
import numpy as np
import pytest

import jdiff
from jdiff import noise, sampling
from jdiff.study import run
from jdiff.study.interpret import Explanations

FORMS = ["optimal", "linear", "local_linear 5", "equivariant_linear"]


@pytest.fixture(scope="module")
def explained(data):
    """The optimal denoiser, explained twice, and the denoisers that were sampled for it."""
    images, drawn = jdiff.data.load(data), []

    def draw(denoiser, grid):
        drawn.append((type(denoiser).__name__, grid))
        sigmas = noise.parse_grid(grid)
        return np.asarray(sampling.sample(denoiser, jax.random.key(0), 8, sigmas=sigmas))

    explanations = Explanations(images, 0, draw)
    optimal = jdiff.OptimalDenoiser.fit(images.images)
    samples = np.asarray(sampling.sample(optimal, jax.random.key(0), 8, sigmas=noise.karras(4)))
    found = [explanations.of(optimal, samples, "karras:4") for _ in range(2)]
    assert [measured.skipped for measured in found] == [{}, {}]
    return [measured.measures for measured in found], drawn


def test_the_optimal_denoiser_is_explained_by_itself_best(explained):
    found = explained[0][0]
    r = {form: np.asarray(found[f"explained_by {form} pearson_r"].value) for form in FORMS}
    np.testing.assert_allclose(r["optimal"], 1, atol=1e-6)
    assert all(np.all(r[form] < 1 - 1e-4) for form in FORMS[1:])
    of_samples = {f: found[f"explained_by samples of {f} pearson_r"].value for f in FORMS}
    assert of_samples["optimal"] == pytest.approx(1, abs=1e-6)
    assert max(of_samples[form] for form in FORMS[1:]) < 0.999


def test_every_form_is_sampled_once_a_grid(explained):
    assert len(explained[1]) == len(set(explained[1])) == len(FORMS)


def test_five_levels_and_few_images(explained):
    found = explained[0][0]
    assert {np.shape(found[f"locality_profile {share}%"].value) for share in (50, 75, 95)} == {(5,)}
    # 32 training and 40 held-out images bound what may be asked for.
    assert found["psnr_gap"].n == 32
    assert found["locality_profile 50%"].n == 8


def test_it_is_measured_in_a_study_of_networks_alone(make_study, tmp_path):
    study = make_study(
        architectures=("linear", "mlp:width=8,depth=1"), interpret=True, claims=("differ", "sight")
    )
    rows = run(study, tmp_path / "study", progress=False)
    linear, mlp = (row.record for row in rows)
    assert "psnr_gap" not in linear["measures"]
    assert {"psnr_gap", "explained_by samples of linear pearson_r"} <= set(mlp["measures"])
    assert len(mlp["measures"]["psnr_gap"]["value"]) == 5
    assert mlp["receptive_field"] == 8
    assert mlp["left_out"] == {}
    claims = json.loads((tmp_path / "study" / "results.json").read_text())["claims"]
    assert [claim["shown"] for claim in claims] == [None, None]


def test_networks_for_levels_share_a_row(make_study, tmp_path):
    network = "mlp:width=16,depth=2"
    study = make_study(architectures=(network, f"{network},per_level=karras:2"))
    mlp, per_level = (row.record for row in run(study, tmp_path / "study", progress=False))
    # Two networks share the steps of a row, and are sampled at their levels alone.
    assert per_level["sigmas"] == "karras:2"
    assert per_level["nfe"] == 3  # heun
    assert per_level["budget"] == {**mlp["budget"], "networks": 2}
    assert per_level["num_params"] == 2 * mlp["num_params"]
    # Both are compared with optimal samples at their own grid.
    assert "pearson_r_to_optimal" in per_level["measures"]
    loaded = jdiff.load(tmp_path / "study" / per_level["samples"].rpartition("/")[0])
    np.testing.assert_allclose(loaded.sigmas, noise.karras(2)[:2])
    notes = json.loads((tmp_path / "study" / "results.json").read_text())["notes"]
    assert ["per_level=karras:2" in note for note in notes] == [True]
