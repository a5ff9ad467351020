"""What the UNet promises: shapes, options, gradients, what passes the bottleneck."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks.unet import UNet, max_levels


@functools.partial(jax.jit, static_argnums=0)
def apply(module: Any, variables, x, t, labels=None):
    """One compilation for all tests of one module and batch."""
    return module.apply(variables, x, t, labels)


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


SMALL = UNet(width=4, levels=2)


@pytest.mark.core
@pytest.mark.parametrize(
    ("module", "image_shape"),
    [
        (SMALL, (8, 8, 1)),
        (UNet(width=2, levels=3, norm="none"), (4, 8, 3)),
        (UNet(width=5, levels=1, blocks=2), (7, 3, 2)),
        (UNet(width=4, levels=1), (1, 1, 2)),
        (UNet(width=4, levels=2, skips=False, norm="none"), (2, 2, 1)),
    ],
    ids=["digits", "deep", "odd", "points", "no-skips"],
)
def test_shapes(module, image_shape, rng, variables_for):
    variables = variables_for(module, image_shape)
    x = draw(rng, 2, *image_shape)
    y = apply(module, variables, x, jnp.zeros(2))
    assert y.shape == x.shape
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_the_head_starts_at_zero(rng, variables_for):
    init = lambda: networks.init(SMALL, jax.random.key(0), (8, 8, 1))["params"]["Conv_2"]
    variables = variables_for(SMALL, (8, 8, 1))
    variables["params"]["Conv_2"] = jax.jit(init)()
    y = apply(SMALL, variables, draw(rng, 2, 8, 8, 1), jnp.zeros(2))
    np.testing.assert_array_equal(y, 0)


@pytest.mark.core
def test_gradients_reach_every_parameter(rng, variables_for):
    module = UNet(width=4, levels=2, norm="none", num_classes=2)
    variables = variables_for(module, (4, 4, 1))
    x, t, labels = draw(rng, 3, 4, 4, 1), draw(rng, 3), jnp.array([0, 1, 2])
    loss = lambda v: jnp.sum(apply(module, v, x, t, labels) ** 2)
    # Without optimisation it compiles twice as fast.
    options = {"xla_backend_optimization_level": 0}
    gradients = jax.jit(jax.grad(loss), compiler_options=options)(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_jit_and_pmap_agree_and_repeat(rng, variables_for):
    variables = variables_for(SMALL, (8, 8, 1))
    devices = jax.local_device_count()
    x, t = draw(rng, 2 * devices, 8, 8, 1), draw(rng, 2 * devices)
    y = np.asarray(apply(SMALL, variables, x, t))
    np.testing.assert_array_equal(apply(SMALL, variables, x, t), y)
    split = lambda a: a.reshape(devices, 2, *a.shape[1:])
    mapped = jax.pmap(SMALL.apply, in_axes=(None, 0, 0))
    once = np.asarray(mapped(variables, split(x), split(t)))
    np.testing.assert_array_equal(mapped(variables, split(x), split(t)), once)
    # The same sums in another order: some ten layers of float32 rounding on values of order 1.
    np.testing.assert_allclose(once.reshape(y.shape), y, atol=1e-4 * np.abs(y).max())


def test_an_image_does_not_see_its_batch(rng, variables_for):
    variables = variables_for(SMALL, (8, 8, 1))
    x, t = draw(rng, 2, 8, 8, 1), draw(rng, 2)
    y = apply(SMALL, variables, x, t)
    moved = apply(SMALL, variables, x.at[0].add(1.0), t)
    np.testing.assert_array_equal(moved[1], y[1])
    assert not np.allclose(moved[0], y[0], atol=1e-3)


def test_time_matters(rng, variables_for):
    variables = variables_for(SMALL, (8, 8, 1))
    x = draw(rng, 2, 8, 8, 1)
    at = lambda t: np.asarray(apply(SMALL, variables, x, jnp.full(2, t)))
    assert np.abs(at(0.0) - at(1.0)).max() > 1e-3


@pytest.mark.core
def test_labels_none_is_the_null_label_and_other_labels_differ(rng, variables_for):
    module = UNet(width=4, levels=1, num_classes=3)
    variables = variables_for(module, (4, 4, 1))
    x, t = draw(rng, 2, 4, 4, 1), jnp.zeros(2)
    labelled = lambda label: np.asarray(apply(module, variables, x, t, jnp.full(2, label)))
    np.testing.assert_allclose(apply(module, variables, x, t), labelled(3), atol=1e-6)
    for label in range(3):
        assert np.abs(labelled(label) - labelled(3)).max() > 1e-3


def test_labels_without_classes_are_refused(rng, variables_for):
    variables = variables_for(SMALL, (8, 8, 1))
    with pytest.raises(ValueError, match="labels were given to a network without classes"):
        SMALL.apply(variables, draw(rng, 2, 8, 8, 1), jnp.zeros(2), jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize("skips", [False, True], ids=["without", "with"])
def test_without_skips_everything_passes_the_bottleneck(skips, rng, variables_for):
    # Three levels of width 2 on 8x8: 2 x 2 x 4 = 16 numbers reach the coarsest level, and no more
    # directions of the image can pass there. With skips, all 64 can go round it.
    module = UNet(width=2, levels=3, skips=skips, norm="none")
    variables = variables_for(module, (8, 8, 1))
    f = lambda v, x: apply(module, v, x.reshape(1, 8, 8, 1), jnp.zeros(1)).ravel()
    jacobian = jax.jit(jax.jacfwd(f, argnums=1))(variables, draw(rng, 64))
    values = np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)
    # float32 rounding leaves some 1e-7 of the largest.
    assert (values[16] > 1e-6 * values[0]) == skips
    assert values[15] > 1e-6 * values[0]


def test_the_middle_is_sown_when_asked(rng, variables_for):
    module: Any = UNet(width=4, levels=2, norm="none")
    variables = variables_for(module, (8, 8, 1))
    assert set(variables) == {"params"}
    x, t = draw(rng, 2, 8, 8, 1), jnp.zeros(2)
    seen = jax.jit(lambda v: module.apply(v, x, t, mutable="intermediates"))(variables)
    (middle,) = seen[1]["intermediates"]["bottleneck"]
    assert middle.shape == (2, 4, 4, 8)
    np.testing.assert_allclose(apply(module, variables, x, t), seen[0], atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("given", [1, "1", (1,), [np.int64(1)]], ids=str)
def test_levels_of_attention_are_read_from_numbers_and_text(given):
    module = UNet(width=4, attention=given)
    assert module == UNet(width=4, attention=(1,))
    assert hash(module) == hash(UNet(width=4, attention=(1,)))
    make: Any = UNet
    assert make(attention="2+0") == make(attention=[0, 2]) == make(attention=(2, 0))
    assert make(attention="2+0").attention == (0, 2)
    assert UNet(attention=()) == UNet()


def layer_names(module, image_shape):
    shapes = jax.eval_shape(lambda: networks.init(module, jax.random.key(0), image_shape))
    return shapes["params"], jax.tree_util.tree_leaves_with_path(shapes["params"])


def test_attention_follows_every_block_of_its_levels():
    count = lambda attention: sum(
        name.startswith("SelfAttention")
        for name in layer_names(UNet(width=4, levels=2, attention=attention), (8, 8, 1))[0]
    )
    # Level 0: one block down, two up. Level 1: these, and the middle's two.
    assert [count(a) for a in ((), 0, 1, (0, 1))] == [0, 3, 5, 8]


@pytest.mark.parametrize("norm", ["none", "bias_free_batch"])
def test_without_constants_it_is_homogeneous(norm, rng, variables_for):
    options = {"biases": False, "time": False, "activation": "relu", "norm": norm}
    module = UNet(width=4, levels=2, padding="circular", down="average", **options)
    variables = variables_for(module, (4, 4, 1))
    x = draw(rng, 2, 4, 4, 1)
    y = np.asarray(apply(module, variables, x, jnp.zeros(2)))
    assert np.abs(y).max() > 1e-3
    # A power of two is multiplied exactly.
    np.testing.assert_array_equal(apply(module, variables, 8 * x, jnp.zeros(2)), 8 * y)
    constants = UNet(width=4, levels=2, **{**options, "biases": True})
    zero = apply(constants, variables_for(constants, (4, 4, 1)), 0 * x, jnp.zeros(2))
    assert np.abs(zero).max() > 1e-3


def test_without_biases_only_embeddings_have_some():
    module = UNet(width=4, levels=2, biases=False, attention=(1,), num_classes=2, up="transposed")
    _, leaves = layer_names(module, (8, 8, 1))
    biased = {path[0].key for path, _ in leaves if path[-1].key == "bias"}
    assert biased == {"TimeEmbedding_0"}


@pytest.mark.core
def test_parameters_and_flops_of_every_knob_by_hand():
    # Width 4, two levels, 4x4x1: pixels, inputs, outputs of 3x3 convolutions, and of dense layers.
    blocks = lambda p, c, f: ([(p, c, f), (p, f, f)], [(p, c, f)] * (c != f))
    stages = [
        *[([(16, 1, 4)], []), blocks(16, 4, 4)],
        *[blocks(4, 4, 8), blocks(4, 8, 3), blocks(4, 3, 3)],
        *[blocks(4, 3 + 8, 8), blocks(4, 8 + 4, 8)],
        *[blocks(16, 8 + 4, 4), blocks(16, 4 + 4, 4)],
        ([(16, 4, 1)], []),
    ]
    convolutions = [layer for stage in stages for layer in stage[0]]
    shortcuts = [layer for stage in stages for layer in stage[1]]
    grown = 4 * 8 * 8  # the 2x2 kernel, used at 4 pixels
    kernels = sum(9 * c * f for _, c, f in convolutions) + sum(c * f for _, c, f in shortcuts)
    taps = {16: 9, 4: 4}  # of a pixel: no more than the image has
    flops = 2 * sum(p * taps[p] * c * f for p, c, f in convolutions)
    flops += 2 * sum(p * c * f for p, c, f in shortcuts) + 2 * 4 * grown
    knobs = {"norm": "none", "down": "average", "up": "transposed", "bottleneck": 3}
    module = UNet(width=4, levels=2, time=False, biases=False, **knobs)
    assert networks.num_params(module, (4, 4, 1)) == kernels + grown
    assert networks.flops_per_image(module, (4, 4, 1)) == flops
    biases = sum(f for _, _, f in convolutions + shortcuts) + 8
    biased = UNet(width=4, levels=2, time=False, **knobs)
    assert networks.num_params(biased, (4, 4, 1)) == kernels + grown + biases
    # Attention thrice at 16 pixels with 4 channels: q, k, v, the output; q k^T and its use.
    seeing = UNet(width=4, levels=2, time=False, biases=False, attention=(0,), **knobs)
    assert networks.num_params(seeing, (4, 4, 1)) == kernels + grown + 3 * 4 * 16
    attention = 2 * 16 * 4 * 16 + 2 * 2 * 16 * 16 * 4
    assert networks.flops_per_image(seeing, (4, 4, 1)) == flops + 3 * attention


def test_size_of_the_common_configuration():
    # diffusers' UNet2DModel with channels (32, 64, 128), one layer a block and no attention has
    # 2.47 M parameters, counted there.
    assert networks.num_params(UNet(), (32, 32, 3)) == pytest.approx(2.47e6, rel=3e-3)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((8, 8, 1), 4), ((28, 28, 1), 3), ((32, 32, 3), 6), ((1, 1, 2), 1), ((6, 4, 1), 2)],
    ids=str,
)
def test_most_levels(shape, levels):
    assert max_levels(shape) == levels


@pytest.mark.parametrize(
    ("shape", "levels", "most"),
    [((8, 8, 1), 5, 4), ((28, 28, 1), 4, 3), ((7, 8, 1), 2, 1)],
    ids=str,
)
def test_too_many_levels_are_refused_when_traced_and_by_create(shape, levels, most):
    message = f"levels must be at most {most} for {shape[0]}x{shape[1]} images .*; got {levels}"
    module = UNet(width=4, levels=levels)
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))
    with pytest.raises(ValueError, match=message):
        networks.create("unet", shape, levels=levels)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"x must have shape \[B, height, width, channels\]"):
        SMALL.init(jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.zeros(8))
    with pytest.raises(ValueError, match=r"c_noise must have shape \(2,\)"):
        SMALL.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), jnp.zeros(()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1; got 0"),
        ({"width": 2.0}, TypeError, "width must be a whole number; got 2.0"),
        ({"levels": 0}, ValueError, "levels must be at least 1; got 0"),
        ({"blocks": "2"}, TypeError, "blocks must be a whole number; got '2'"),
        ({"skips": 1}, TypeError, "skips must be True or False; got 1"),
        ({"norm": "grup"}, ValueError, "norm is 'grup'. Did you mean 'group'.*, group, none"),
        ({"norm": None}, ValueError, "norm is None.*: batch, bias_free_batch, group, none"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1; got 0"),
        ({"num_classes": True}, TypeError, "num_classes must be a whole number; got True"),
        ({"padding": "same"}, ValueError, "padding is 'same'.*Accepted: circular, zeros"),
        ({"biases": None}, TypeError, "biases must be True or False; got None"),
        ({"bottleneck": 0}, ValueError, "bottleneck must be at least 1; got 0"),
        ({"down": "max"}, ValueError, "down is 'max'.*Accepted: average, conv"),
        ({"up": "nearst"}, ValueError, "up is 'nearst'. Did you mean 'nearest'.*, transposed"),
        ({"attention": 3}, ValueError, r"from 0 to 2 or several.*\(levels=3\); got 3"),
        ({"attention": (0, -1)}, ValueError, "attention must be at least 0; got -1"),
        (
            {"attention": [1, 1]},
            ValueError,
            r"each once, as in \(0, 1\) or '0\+1' \(levels=3\); got \[1, 1\]",
        ),
        (
            {"attention": "1,2"},
            ValueError,
            r"attention must be .*as in \(0, 1\) or '0\+1' .*'1,2'",
        ),
        ({"attention": "-1"}, ValueError, "attention must be at least 0; got -1"),
        ({"attention": True}, TypeError, "attention must be a whole number; got True"),
        ({"attention": 1.0}, TypeError, "attention must be a whole number; got 1.0"),
        ({"time": "no"}, TypeError, "time must be True or False; got 'no'"),
        ({"dropout": 1}, ValueError, r"dropout must be in \[0, 1\); got 1"),
        ({"dropout": -0.1}, ValueError, r"dropout must be in \[0, 1\); got -0.1"),
        ({"activation": "gelu"}, ValueError, "activation is 'gelu'.*Accepted: relu, silu"),
        ({"dtype": "half"}, ValueError, "dtype is 'half'.*Accepted: bfloat16, float32"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        UNet(**options)
