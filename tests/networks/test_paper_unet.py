"""The paper's UNet against NumPy, its counts by hand, its homogeneity, what it refuses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks import PaperUNet


@functools.partial(jax.jit, static_argnums=0)
def apply(module: Any, variables, x, labels=None):
    return module.apply(variables, x, jnp.full(len(x), 0.3), labels)


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@pytest.mark.core
@pytest.mark.parametrize("skips", [True, False], ids=["skips", "no-skips"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_it_equals_the_formula(skips, padding, rng, variables_for, convolved):
    # Layers by their names in order of use, written out for two levels.
    module = PaperUNet(width=3, levels=2, skips=skips, padding=padding, norm="bias_free_batch")
    variables = variables_for(module, (4, 8, 2))
    x = draw(rng, 2, 4, 8, 2)
    parameters, statistics = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables[collection])
        for collection in ("params", "batch_stats")
    )
    convolutions, normalisations = iter(range(10)), iter(range(10))

    def conv(h):
        return convolved(h, parameters[f"Conv_{next(convolutions)}"]["kernel"], padding)

    def conv_norm_relu(h, norm=True):
        h, name = conv(h), f"NormActivation_{next(normalisations)}"
        if norm:
            scale = parameters[name]["BiasFreeBatchNorm_0"]["scale"]
            h = h * scale / statistics[name]["BiasFreeBatchNorm_0"]["deviation"]
        return np.maximum(h, 0)

    def mean(h):
        return (h[:, 0::2, 0::2] + h[:, 1::2, 0::2] + h[:, 0::2, 1::2] + h[:, 1::2, 1::2]) / 4

    def grow(h, number, skip):
        kernel = parameters[f"TransposedConv_{number}"]["kernel"]
        large = np.zeros((2, 2 * h.shape[1], 2 * h.shape[2], kernel.shape[-1]))
        for a in range(2):
            for b in range(2):
                large[:, a::2, b::2] = h @ kernel[a, b]
        return np.concatenate([large, skip], -1) if skips else large

    fine = conv_norm_relu(conv_norm_relu(np.asarray(x, np.float64), norm=False))
    coarse = conv_norm_relu(conv_norm_relu(mean(fine)))
    middle = conv_norm_relu(conv_norm_relu(mean(coarse)))
    h = conv_norm_relu(conv_norm_relu(grow(middle, 0, coarse)))
    expected = conv(conv_norm_relu(grow(h, 1, fine)))
    assert (next(convolutions, None), next(normalisations)) == (None, 9)
    assert middle.shape[-1] == 2 * coarse.shape[-1] == 4 * fine.shape[-1] == 12
    # Ten layers of float32 rounding.
    np.testing.assert_allclose(
        apply(module, variables, x), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.core
@pytest.mark.parametrize("norm", ["bias_free_batch", "none"])
def test_it_is_homogeneous_without_constants(norm, rng, variables_for):
    # By powers of two, which float32 multiplies exactly, so that nothing but a constant differs.
    module = PaperUNet(width=4, levels=2, norm=norm)
    variables = variables_for(module, (8, 8, 1))
    x = draw(rng, 2, 8, 8, 1)
    y = np.asarray(apply(module, variables, x))
    assert np.abs(y).max() > 1e-3
    for factor in (0.25, 8.0):
        np.testing.assert_array_equal(apply(module, variables, factor * x), factor * y)
    np.testing.assert_allclose(apply(module, variables, 3 * x), 3 * y, atol=1e-5 * np.abs(y).max())
    assert not np.allclose(apply(module, variables, -x), -y, atol=1e-2 * np.abs(y).max())


def test_batch_norm_and_biases_bring_constants_in(rng, variables_for):
    for module in (PaperUNet(width=4, levels=1), PaperUNet(4, 1, norm="none", biases=True)):
        variables = variables_for(module, (4, 4, 1))
        assert np.abs(apply(module, variables, jnp.zeros((2, 4, 4, 1)))).max() > 1e-3


@pytest.mark.core
@pytest.mark.parametrize("norm", ["batch", "bias_free_batch", "none"])
def test_no_layer_has_a_bias(norm):
    module = PaperUNet(width=4, levels=2, norm=norm)
    shapes = jax.eval_shape(lambda: networks.init(module, jax.random.key(0), (8, 8, 1)))
    names = {p[-1].key for p, _ in jax.tree_util.tree_leaves_with_path(shapes["params"])}
    assert names == ({"kernel"} if norm == "none" else {"kernel", "scale"})
    assert ("batch_stats" in shapes) == (norm != "none")


@pytest.mark.core
def test_parameters_and_flops_by_hand():
    # Width 32 and three levels on 32x32x3: pixels, inputs and outputs of every 3x3 convolution.
    convolutions = [
        *[(1024, 3, 32), (1024, 32, 32)],
        *[(256, 32, 64), (256, 64, 64)],
        *[(64, 64, 128), (64, 128, 128)],
        *[(16, 128, 256), (16, 256, 256)],
        *[(64, 256, 128), (64, 128, 128)],
        *[(256, 128, 64), (256, 64, 64)],
        *[(1024, 64, 32), (1024, 32, 3)],
    ]
    # Each large pixel sees one of four taps.
    grown = [(64, 256, 128), (256, 128, 64), (1024, 64, 32)]
    kernels = sum(9 * c * f for _, c, f in convolutions) + sum(4 * c * f for _, c, f in grown)
    gains = sum(f for _, _, f in convolutions[1:-1])
    flops = 2 * sum(p * 9 * c * f for p, c, f in convolutions)
    flops += 2 * sum(p * c * f for p, c, f in grown)
    for norm, count in (("none", kernels), ("bias_free_batch", kernels + gains)):
        module = PaperUNet(norm=norm)
        assert networks.num_params(module, (32, 32, 3)) == count
        assert networks.flops_per_image(module, (32, 32, 3)) == flops
    assert networks.num_params(PaperUNet(), (32, 32, 3)) == kernels + gains
    biased = PaperUNet(biases=True)
    # The first convolution and the last, and the shifts of the norms between.
    biases = 32 + gains + 3
    assert networks.num_params(biased, (32, 32, 3)) == kernels + gains + biases
    # Without norms all 14 convolutions and the three that grow have their own.
    biased = PaperUNet(biases=True, norm="none")
    own = gains + 32 + 3 + 128 + 64 + 32
    assert networks.num_params(biased, (32, 32, 3)) == kernels + own


def test_c_noise_is_ignored_unless_asked_for(rng, variables_for):
    x = draw(rng, 2, 4, 4, 1)
    for time in (False, True):
        module: Any = PaperUNet(width=4, levels=1, norm="none", time=time)
        variables = variables_for(module, (4, 4, 1))
        run = jax.jit(lambda t, module=module, v=variables: module.apply(v, x, jnp.full(2, t)))
        assert np.array_equal(run(-1.0), run(1.0)) != time


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((8, 8, 1), 2), ((28, 28, 1), 2), ((32, 32, 3), 3), ((64, 64, 3), 3), ((6, 4, 1), 1)],
    ids=str,
)
def test_levels_follow_the_image(shape, levels):
    assert networks.create("paper_unet", shape) == PaperUNet(levels=levels)


@pytest.mark.parametrize(
    ("shape", "levels", "message"),
    [
        ((8, 8, 1), 4, "levels must be at most 3 for 8x8 images .*; got 4"),
        ((28, 28, 1), 3, "levels must be at most 2 for 28x28 images .*; got 3"),
        ((7, 8, 1), 1, "image_shape must have an even height and width for PaperUNet.*got 7x8"),
    ],
    ids=str,
)
def test_images_that_cannot_be_halved_are_refused(shape, levels, message):
    with pytest.raises(ValueError, match=message):
        networks.create("paper_unet", shape, levels=levels)
    with pytest.raises(ValueError, match=message):
        PaperUNet(levels=levels).init(jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1; got 0"),
        ({"levels": 1.5}, TypeError, "levels must be a whole number; got 1.5"),
        ({"skips": 0}, TypeError, "skips must be True or False; got 0"),
        ({"padding": "circle"}, ValueError, "padding is 'circle'.*'circular'.*: circular, zeros"),
        ({"norm": "group"}, ValueError, "norm is 'group'.*: batch, bias_free_batch, none"),
        ({"biases": "no"}, TypeError, "biases must be True or False; got 'no'"),
        ({"time": 1}, TypeError, "time must be True or False; got 1"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1; got 0"),
        ({"dtype": "float16"}, ValueError, "dtype is 'float16'.*: bfloat16, float32"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        PaperUNet(**options)
