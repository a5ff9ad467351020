"""What every network promises, over many combinations of options."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks import MLP, BottleneckMLP, PaperUNet, ResNet, UNet

IMAGE = (8, 8, 1)
CASES = {
    "unet": UNet(width=4, levels=1, attention=(0,)),
    "unet-circular": UNet(width=8, levels=1, norm="batch", padding="circular", num_classes=3),
    "unet-constant-free": UNet(
        width=8,
        levels=2,
        skips=False,
        norm="bias_free_batch",
        biases=False,
        bottleneck=3,
        down="average",
        up="transposed",
        time=False,
        activation="relu",
    ),
    "unet-blind": UNet(width=8, levels=1, norm="none", time=False, dropout=0.3, num_classes=3),
    "paper_unet": PaperUNet(width=8, levels=1),
    "paper_unet-circular": PaperUNet(width=8, levels=1, padding="circular", norm="bias_free_batch"),
    "paper_unet-told": PaperUNet(
        width=8, levels=1, skips=False, biases=True, time=True, num_classes=3
    ),
    "kamb_unet": networks.create("kamb_unet", IMAGE, width=8),
    "resnet": ResNet(width=8, depth=2),
    "resnet-circular": ResNet(
        width=8,
        depth=1,
        kernel_size=5,
        padding="circular",
        norm="batch",
        dropout=0.3,
        num_classes=3,
    ),
    "mlp": MLP(width=8, depth=2),
    "mlp-silu": MLP(width=8, depth=2, activation="silu", dropout=0.3, num_classes=3),
    "bottleneck_mlp": BottleneckMLP(width=8, num_classes=3),
}


@pytest.fixture
def case(request, rng, variables_for):
    """(module, variables, x, c_noise, labels) of a case."""
    module: Any = CASES[request.param]
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    labels = None if module.num_classes is None else jnp.array([0, 1, 2, 3])
    return module, variables_for(module, IMAGE), draw(4, *IMAGE), draw(4), labels


def cases(*names):
    marks = lambda name: [pytest.mark.core] if name == "mlp-silu" else []
    parameters = [pytest.param(name, marks=marks(name)) for name in names or CASES]
    return pytest.mark.parametrize("case", parameters, indirect=True)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(module: Any, variables, x, c_noise, labels):
    return module.apply(variables, x, c_noise, labels)


@cases()
def test_evaluation_is_one_function_of_an_image_and_what_is_told_of_it(case):
    module, variables, x, c_noise, labels = case
    F = lambda x, t, labels: np.asarray(evaluate(module, variables, x, t, labels))
    y = F(x, c_noise, labels)
    assert y.shape == x.shape
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert np.abs(y).max() > 1e-3
    np.testing.assert_array_equal(F(x, c_noise, labels), y)
    moved = F(x.at[0].add(1.0), c_noise, labels)
    np.testing.assert_array_equal(moved[1:], y[1:])
    assert np.abs(moved[0] - y[0]).max() > 1e-3
    later = F(x, c_noise + 0.7, labels)
    assert np.allclose(later, y, atol=1e-6) != module.time

    if labels is None:
        apply = lambda v: module.apply(v, x, c_noise, jnp.zeros(4, jnp.int32))
        with pytest.raises(ValueError, match="labels were given to a network without classes"):
            jax.eval_shape(apply, variables)
        return
    other = F(x, c_noise, jnp.array([1, 1, 3, 3]))
    np.testing.assert_array_equal(other[1::2], y[1::2])
    for image in (0, 2):
        assert np.abs(other[image] - y[image]).max() > 1e-4


# Twice as fast to compile, and a gradient's support is no matter of speed.
UNOPTIMISED = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnums=0, compiler_options=UNOPTIMISED)
def train(module: Any, variables, x, c_noise, labels, key):
    """(gradient of the mean square, (F, statistics)) in training mode."""
    statistics = {name: value for name, value in variables.items() if name != "params"}

    def loss(params):
        y, updated = module.apply(
            {"params": params, **statistics},
            x,
            c_noise,
            labels,
            train=True,
            rngs={"dropout": key},
            mutable=list(statistics),
        )
        return jnp.mean(y**2), (y, updated)

    return jax.grad(loss, has_aux=True)(variables["params"])


@cases()
def test_training_reaches_every_parameter_and_draws_what_it_says(case):
    module, variables, x, c_noise, labels = case
    step = lambda seed: train(module, variables, x, c_noise, labels, jax.random.key(seed))
    gradient, (y, updated) = step(1)
    assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])
    # What takes no part leaves 0, or what cancels but for rounding.
    sizes = {
        jax.tree_util.keystr(path): float(jnp.abs(leaf).max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
    }
    assert np.isfinite(list(sizes.values())).all()
    assert min(sizes.values()) > 1e-5 * max(sizes.values()), min(sizes, key=sizes.__getitem__)

    before = {name: value for name, value in variables.items() if name != "params"}
    assert jax.tree.structure(updated) == jax.tree.structure(before)
    for new, old in zip(jax.tree.leaves(updated), jax.tree.leaves(before), strict=True):
        assert np.all(new != old)

    np.testing.assert_array_equal(step(1)[1][0], y)
    dropout = getattr(module, "dropout", 0)
    assert np.array_equal(step(2)[1][0], y) == (dropout == 0)
    has_statistics = "batch" in getattr(module, "norm", "none")
    assert has_statistics == ("batch_stats" in variables)
    same = np.allclose(y, evaluate(module, variables, x, c_noise, labels), atol=1e-5)
    assert same == (dropout == 0 and not has_statistics)


@cases("unet-blind", "paper_unet-told", "resnet-circular", "mlp-silu", "bottleneck_mlp")
def test_eager_jit_and_pmap_agree(case):
    module, variables, x, c_noise, labels = case
    y = np.asarray(evaluate(module, variables, x, c_noise, labels))
    # The same sums in another order: some ten layers of float32 rounding.
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-5 * np.abs(y).max())
    close(module.apply(variables, x, c_noise, labels), y)
    devices = jax.local_device_count()
    split = lambda a: jnp.stack([a] * devices)
    mapped = jax.pmap(module.apply, in_axes=(None, 0, 0, 0))
    for one in np.asarray(mapped(variables, split(x), split(c_noise), split(labels))):
        close(one, y)


@cases("unet", "paper_unet-circular", "resnet", "mlp-silu")
def test_bfloat16_is_near_float32_and_ends_in_it(case):
    module, variables, x, c_noise, labels = case
    half = module.clone(dtype="bfloat16")
    shapes = jax.eval_shape(lambda: networks.init(half, jax.random.key(0), IMAGE))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), shapes) == jax.tree.map(
        lambda a: (a.shape, a.dtype), variables
    )
    jaxpr = jax.make_jaxpr(lambda v: half.apply(v, x, c_noise, labels))(variables)
    kinds = [str(dtype) for dtype in contraction_dtypes(jaxpr.jaxpr)]
    assert kinds[-1] == "float32"
    # Other than the last layer only the embedding of time.
    told = 2 if module.time else 0
    assert kinds.count("float32") == 1 + told
    assert kinds.count("bfloat16") == len(kinds) - 1 - told > 0
    y = np.asarray(evaluate(module, variables, x, c_noise, labels))
    low = np.asarray(evaluate(half, variables, x, c_noise, labels))
    assert low.dtype == np.float32
    error = np.sqrt(np.mean((low - y) ** 2) / np.mean(y**2))
    # Rounding of 2^-9 in each of some ten layers.
    assert 1e-4 < error < 2e-2


def contraction_dtypes(jaxpr):
    """The dtypes of what convolutions and matmuls multiply, in order."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
            yield eqn.invars[0].aval.dtype
        for value in eqn.params.values():
            if hasattr(value, "jaxpr"):
                yield from contraction_dtypes(value.jaxpr)


@pytest.mark.core
@pytest.mark.parametrize("name", CASES)
def test_equal_options_are_equal_and_hash_alike(name):
    module = CASES[name]
    options = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name")
    }
    again = type(module)(**options)
    assert again == module
    assert hash(again) == hash(module)
    assert type(module)(**{**options, "width": 9}) != module
    # As JSON gives them back.
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    assert type(module)(**lists) == module
    assert sum(other == module for other in CASES.values()) == 1
