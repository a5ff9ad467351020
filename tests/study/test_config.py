"""Studies, budgets and architectures as they are named: what is read, and what is refused."""

import dataclasses

import numpy as np
import pytest

from jdiff import networks, noise
from jdiff.study import PRESETS, Architecture, Budget, Study

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("spec", "name", "options", "label"),
    [
        ("optimal", "optimal", {}, "optimal"),
        ("linear:rank=5", "linear", {"rank": 5}, "linear:rank=5"),
        ("linear:", "linear", {}, "linear"),
        (
            "unet:width=16,skips=false,norm=none",
            "unet",
            {"width": 16, "skips": False, "norm": "none"},
            "unet:width=16,skips=false,norm=none",
        ),
        (
            " mlp : width = 16 , output = linear ",
            "mlp",
            {"width": 16, "output": "linear"},
            "mlp:width=16,output=linear",
        ),
        ("mlp:time=TRUE", "mlp", {"time": True}, "mlp:time=true"),
        ("mlp:preconditioning=eps", "mlp", {"preconditioning": "eps"}, None),
    ],
)
def test_architectures_are_read_with_types(spec, name, options, label):
    architecture = Architecture.parse(spec)
    assert architecture.name == name
    found = dict(architecture.options)
    assert found == options
    assert [type(value) for value in found.values()] == [type(v) for v in options.values()]
    assert label is None or architecture.label == label
    assert Architecture.parse(architecture.label) == architecture


def test_a_label_may_be_given_and_makes_a_folder():
    assert Architecture("mlp", (("width", 3),), label="small").label == "small"
    assert Architecture.parse("unet:width=16,skips=false").slug == "unet-width-16-skips-false"


def test_closed_forms_and_networks_are_told_apart():
    assert Architecture.parse("linear").closed_form
    assert not Architecture.parse("mlp").closed_form
    assert Architecture.parse("mlp").preconditioning is None
    assert Architecture.parse("mlp:preconditioning=v").preconditioning == "v"


def test_the_word_none_reaches_the_network_that_has_it():
    assert Architecture.parse("unet:norm=none").network((8, 8, 1)).norm == "none"


def test_preconditioning_is_no_option_of_the_module():
    module = Architecture.parse("mlp:width=7,preconditioning=v").network((4, 4, 1))
    assert module == networks.create("mlp", (4, 4, 1), width=7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("optimall", r"architecture is 'optimall'\. Did you mean 'optimal'\?"),
        ("", r"architecture is ''\. Accepted: bottleneck, bottleneck_mlp, equivariant_linear"),
        ("polynomial", r"architecture polynomial needs degree, as in polynomial:degree=3"),
        ("bottleneck:code=posterior", r"architecture bottleneck needs code_dim, as in"),
        ("local_linear", r"architecture local_linear needs patch_size"),
        ("linear:rnak=5", r"option of linear is 'rnak'\. Did you mean 'rank'\? Accepted: rank"),
        ("optimal:width=5", r"option of optimal is 'width'"),
        ("mlp:width", r"name:option=value,\.\.\.; got 'width' in 'mlp:width'"),
        ("mlp:width=3,depth=2,width=4", r"names 'width' twice in 'mlp:width=3,depth=2,width=4'"),
        ("mlp:preconditioning=edn", r"preconditioning is 'edn'\. Did you mean 'edm'\?"),
    ],
)
def test_what_no_architecture_is(spec, message):
    with pytest.raises(ValueError, match=message):
        Architecture.parse(spec)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("mlp:widht=16", ValueError, r"option of mlp is 'widht'\. Did you mean 'width'\?"),
        ("mlp:width=wide", TypeError, r"width must be a whole number; got 'wide'"),
        ("mlp:width=1.5", TypeError, r"width must be a whole number; got 1\.5"),
        ("unet:levels=9", ValueError, r"levels must be at most 4 for 8x8 images"),
    ],
)
def test_what_no_network_can_be_built_from(spec, error, message):
    with pytest.raises(error, match=message):
        Architecture.parse(spec).network((8, 8, 1))


@pytest.mark.parametrize(
    ("spec", "budget"),
    [
        ("steps:2000", Budget(2000)),
        ("seconds:0.5", Budget(0.5, "seconds")),
        ("flops:1e12", Budget(1e12, "flops")),
    ],
)
def test_budgets_are_read(spec, budget):
    assert Budget.parse(spec) == budget


@pytest.mark.parametrize("spec", ["", "tinny", "steps", "steps:", "steps:many", "steps:-1"])
def test_what_no_budget_is(spec):
    with pytest.raises(ValueError, match=f"tiny, steps:N, seconds:N or flops:N; got '{spec}'"):
        Budget.parse(spec)


def test_a_misspelt_unit_is_matched():
    with pytest.raises(ValueError, match=r"budget unit is 'step'\. Did you mean 'steps'\?"):
        Budget(3, "step")
    with pytest.raises(ValueError, match=r"got 'second:3' .*Did you mean 'seconds'"):
        Budget.parse("second:3")


@pytest.mark.parametrize("amount", [0, -5, float("nan"), float("inf")])
def test_an_amount_is_positive_and_finite(amount):
    with pytest.raises(ValueError, match=r"budget amount must be in \(0, inf\)"):
        Budget(amount)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"architectures": ()}, ValueError, "architectures must not be empty"),
        ({"num_train": ()}, ValueError, "num_train must not be empty"),
        ({"seeds": ()}, ValueError, "seeds must not be empty"),
        ({"architectures": ("mlp", "mlp")}, ValueError, "architectures names mlp more than once"),
        ({"architectures": ("linear:rank=3", "linear: rank=3")}, ValueError, "rank=3 more than"),
        ({"num_train": (10, 20, 10)}, ValueError, "num_train names 10 more than once"),
        ({"seeds": (1, 1)}, ValueError, "seeds names 1 more than once"),
        ({"architectures": ("optimal", "mpl")}, ValueError, "'mpl'. Did you mean 'mlp'?"),
        ({"num_train": (5,)}, ValueError, "num_train must be at least 6; got 5"),
        ({"num_train": (2.5,)}, TypeError, "num_train must be a whole number; got 2.5"),
        ({"seeds": (-1,)}, ValueError, "seed must be at least 0; got -1"),
        ({"seed": -1}, ValueError, "seed must be at least 0; got -1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"num_samples": 19}, ValueError, "num_samples must be at least 20; got 19"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be in"),
        ({"sigmas": "karas:18"}, ValueError, "sigmas is 'karas'. Did you mean 'karras'?"),
        ({"sigmas": "karras"}, ValueError, "sigmas must read NAME:STEPS"),
        ({"solver": "huen"}, ValueError, "solver is 'huen'. Did you mean 'heun'?"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(fields, error, message):
    with pytest.raises(error) as raised:
        Study("tiny", **fields)
    assert message in str(raised.value)


def test_a_tiny_study_differs_in_budget_and_samples_alone():
    demo = PRESETS["demo"]
    assert isinstance(demo, Study)
    tiny = demo.tiny()
    assert tiny.budget.amount < demo.budget.amount
    assert tiny.budget.image_shape is None  # not divided again
    assert tiny.num_samples < demo.num_samples
    assert dataclasses.replace(demo, budget=tiny.budget, num_samples=tiny.num_samples) == tiny


def test_the_demo_is_the_main_job_on_data_that_needs_no_download():
    demo = PRESETS["demo"]
    assert isinstance(demo, Study)
    assert demo.data == "digits"
    assert {"optimal", "linear", "unet", "mlp"} <= {
        spec.partition(":")[0] for spec in demo.architectures
    }


def test_one_network_a_level_is_an_option_of_networks():
    architecture = Architecture.parse("unet:width=16,per_level=vp_cosine:4")
    assert architecture.per_level == "vp_cosine:4"
    assert architecture.label == "unet:width=16,per_level=vp_cosine:4"
    assert architecture.network((8, 8, 1)).width == 16
    np.testing.assert_array_equal(architecture.grid("karras:18"), noise.vp_cosine(4))
    np.testing.assert_array_equal(Architecture.parse("unet").grid("karras:18"), noise.karras(18))


@pytest.mark.parametrize("spec", ["mlp:per_level=4", "mlp:per_level=karas:4", "mlp:per_level=true"])
def test_a_grid_that_is_none_is_refused(spec):
    with pytest.raises(ValueError, match="per_level must name a grid, GRID:STEPS.*got"):
        Architecture.parse(spec)
    with pytest.raises(ValueError, match="option of linear is 'per_level'"):
        Architecture.parse("linear:per_level=karras:4")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": "cosin"}, "schedule is 'cosin'. Did you mean 'cosine'"),
        ({"claims": ("widht",)}, "claim is 'widht'. Did you mean 'width'"),
    ],
)
def test_fields_of_a_study_are_checked(fields, words):
    with pytest.raises(ValueError, match=words):
        Study("mine", **fields)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_can_be_built_for_digits_and_fashion(name):
    study = PRESETS[name]
    if not isinstance(study, Study):
        return
    for architecture in study.parsed():
        if not architecture.closed_form:
            for shape in ((8, 8, 1), (28, 28, 1)):
                architecture.network(shape)
    assert len(study.seeds) >= (1 if name == "demo" else 3)
