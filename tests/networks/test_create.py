"""The table of networks: creation, options, counts."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks import MLP, BottleneckMLP, PaperUNet, ResNet, UNet
from jdiff.study import Architecture


@pytest.mark.core
@pytest.mark.parametrize("name", sorted(networks.NETWORKS))
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (28, 28, 1), (1, 1, 2), (5, 7, 3)], ids=str)
def test_every_network_is_created_without_options_for_any_shape(name, image_shape):
    if name == "paper_unet" and image_shape in ((1, 1, 2), (5, 7, 3)):
        with pytest.raises(ValueError, match="must have an even height and width"):
            networks.create(name, image_shape)
        return
    module = networks.create(name, image_shape)
    x, t = jnp.zeros((2, *image_shape)), jnp.zeros(2)
    y = jax.eval_shape(lambda: module.apply(module.init(jax.random.key(0), x, t), x, t))
    assert y.shape == x.shape
    assert module.preconditioning in ("edm", "x0")


@pytest.mark.parametrize(
    ("image_shape", "width", "levels"),
    [
        ((8, 8, 1), 24, 2),
        ((28, 28, 1), 32, 3),
        ((32, 32, 3), 32, 3),
        ((16, 16, 3), 32, 3),
        ((1, 1, 2), 24, 1),
        ((30, 30, 1), 32, 2),
        ((4, 64, 1), 24, 1),
    ],
    ids=str,
)
def test_defaults_follow_the_image(image_shape, width, levels):
    assert networks.create("unet", image_shape) == UNet(width=width, levels=levels)
    # Points may lie beyond 1, where tanh does not reach.
    output = "linear" if image_shape[:2] == (1, 1) else "tanh"
    assert networks.create("mlp", image_shape) == MLP(output=output)


@pytest.mark.parametrize(
    ("image_shape", "options"),
    [
        ((1, 1, 2), {"code_dim": 1, "width": 64, "depth": 1, "output": "linear"}),
        ((8, 8, 1), {"code_dim": 16, "width": 200, "depth": 2, "output": "tanh"}),
        ((32, 32, 3), {"code_dim": 16, "width": 200, "depth": 2, "output": "tanh"}),
        ((3, 3, 1), {"code_dim": 2, "width": 200, "depth": 2, "output": "tanh"}),
        ((1, 3, 1), {"code_dim": 1, "width": 200, "depth": 2, "output": "tanh"}),
    ],
    ids=str,
)
def test_a_bottleneck_is_the_toys_for_points_and_narrower_than_an_image(image_shape, options):
    assert networks.create("bottleneck_mlp", image_shape) == BottleneckMLP(**options)


def test_given_options_win():
    given = {"width": 6, "levels": 3, "blocks": 2, "skips": False, "norm": "none", "num_classes": 4}
    assert networks.create("unet", (8, 8, 1), **given) == UNet(**given)


def test_default_preconditionings():
    assert UNet.preconditioning == "edm"
    assert MLP.preconditioning == BottleneckMLP.preconditioning == PaperUNet.preconditioning == "x0"
    assert ResNet.preconditioning == "edm"


def test_unknown_names_are_refused_with_close_matches():
    with pytest.raises(ValueError, match="network is 'unett'. Did you mean 'unet'.*, resnet, unet"):
        networks.create("unett", (8, 8, 1))
    with pytest.raises(ValueError, match="network is 'transformer'.*, kamb_unet, mlp, paper_unet,"):
        networks.option_types("transformer")


@pytest.mark.parametrize("option", ["widht", "preconditioning", "parent"])
def test_unknown_options_are_refused_with_the_list(option):
    words = (
        f"option of unet is '{option}'.*: activation, attention, biases, .*, skips, time, up, width"
    )
    with pytest.raises(ValueError, match=words):
        networks.create("unet", (8, 8, 1), **{option: 3})


def test_a_close_option_is_named():
    with pytest.raises(ValueError, match="option of mlp is 'widht'. Did you mean 'width'"):
        networks.create("mlp", (8, 8, 1), widht=3)


def test_wrong_values_and_shapes_are_refused():
    with pytest.raises(TypeError, match="width must be a whole number; got '3'"):
        networks.create("unet", (8, 8, 1), width="3")
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width, channels\)"):
        networks.create("unet", (8, 8))
    for function in (networks.num_params, networks.flops_per_image):
        with pytest.raises(ValueError, match=r"image_shape must be \(height, width, channels\)"):
            function(UNet(), (8, 8))


def test_option_types():
    assert networks.option_types("mlp") == {
        "width": int,
        "depth": int,
        "output": str,
        "time": bool,
        "num_classes": int,
        "activation": str,
        "dropout": float,
        "dtype": str,
    }
    assert networks.option_types("unet")["attention"] is tuple
    assert networks.option_types("unet")["bottleneck"] is int
    assert networks.option_types("unet")["skips"] is bool
    assert networks.option_types("bottleneck_mlp")["code_dim"] is int


@pytest.mark.core
@pytest.mark.parametrize("cls", list(networks.NETWORKS.values()))
def test_equal_options_are_one_cache_key(cls):
    a, b = cls(width=8), cls(width=np.int64(8))
    assert a == b
    assert hash(a) == hash(b)
    assert type(b.width) is int
    assert a != cls(width=9)
    # Used once, a module is still the same key.
    networks.num_params(a, (8, 8, 1))
    assert a == b
    assert hash(a) == hash(b)


@pytest.mark.core
def test_a_preset_is_its_class_with_its_options():
    image_shape = (28, 28, 1)
    kamb = networks.create("kamb_unet", image_shape)
    assert kamb == PaperUNet(width=64, levels=2, norm="none", biases=True, time=True)
    assert networks.option_types("kamb_unet") == networks.option_types("paper_unet")
    # What is given wins, and is checked like the class's own.
    assert networks.create("kamb_unet", image_shape, width=8).width == 8
    with pytest.raises(ValueError, match="option of kamb_unet is 'widht'. Did you mean 'width'"):
        networks.create("kamb_unet", image_shape, widht=8)
    for name, (class_name, options) in networks.PRESETS.items():
        assert name not in networks.NETWORKS
        assert set(options) <= set(networks.option_types(class_name))


def test_modules_of_two_networks_differ():
    assert UNet() != MLP()
    assert MLP(width=64, depth=1, output="linear") != BottleneckMLP()


def test_init_compiles_once_for_many_seeds():
    compiled: Any = networks._init
    module = MLP(width=3, depth=1)
    first = networks.init(module, jax.random.key(0), (2, 2, 1))
    before = compiled._cache_size()
    second = networks.init(MLP(width=3, depth=1), jax.random.key(1), (2, 2, 1))
    assert compiled._cache_size() == before
    kernels = [v["params"]["Dense_0"]["kernel"] for v in (first, second)]
    assert not np.array_equal(*kernels)


def test_init_equals_the_modules_own():
    module = MLP(width=3, depth=1)
    ours = networks.init(module, jax.random.key(0), (2, 2, 1))
    own = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), jnp.zeros(1))
    jax.tree.map(np.testing.assert_array_equal, ours, own)


def test_init_refuses_raw_keys():
    with pytest.raises(TypeError, match="key must be one typed key"):
        networks.init(MLP(), jax.random.key_data(jax.random.key(0)), (2, 2, 1))


def test_counts_compute_nothing():
    # 2.4e12 parameters could not be held.
    module = MLP(width=1_000_000, depth=3, time=False)
    assert networks.num_params(module, (1, 1, 1)) == 2 * (10**12 + 10**6) + 3 * 10**6 + 1
    assert networks.flops_per_image(module, (1, 1, 1)) == 2 * (2 * 10**12 + 2 * 10**6)


@pytest.mark.core
def test_flops_of_a_unet_by_hand():
    # One level, width 4, on 2x2x1 images, norm none: 3x3 convolutions at 4 pixels that see 4.
    conv = lambda c, f: 2 * 4 * 4 * c * f
    shortcut = lambda c, f: 2 * 4 * c * f
    time = 2 * (64 * 16 + 16 * 16)
    embed = 2 * 16 * 4  # in every block
    plain = conv(4, 4) + conv(4, 4) + embed
    joined = conv(8, 4) + conv(4, 4) + embed + shortcut(8, 4)
    # Stem; one block down, two in the middle, two up, each with a skip; head.
    by_hand = conv(1, 4) + time + 3 * plain + 2 * joined + conv(4, 1)
    assert networks.flops_per_image(UNet(width=4, levels=1, norm="none"), (2, 2, 1)) == by_hand


class Registered(nn.Module):
    """A user's own: no image_defaults, no check_image."""

    width: int = 3

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        return nn.Conv(x.shape[-1], (3, 3))(x)


def test_a_class_of_ones_own_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    networks.register("mine", Registered)
    networks.register("mine", Registered)  # again, as a notebook's cell is run again
    assert networks.create("mine", (4, 4, 1), width=5) == Registered(width=5)
    assert networks.option_types("mine") == {"width": int}
    assert networks.receptive_field(Registered(), (4, 4, 1)) is None
    with pytest.raises(ValueError, match="option of mine is 'widht'. Did you mean 'width'"):
        networks.create("mine", (4, 4, 1), widht=5)


def test_tuple_options_of_a_registered_class_are_read_from_numbers_and_text(monkeypatch):
    class Taps(nn.Module):
        taps: tuple[int, ...] = ()
        shares: tuple[float, ...] = ()
        features: Sequence[int] = ()  # as linen's own examples annotate a list

        @nn.compact
        def __call__(self, x, c_noise, labels=None, train=False):
            return x

    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    networks.register("taps", Taps)
    make = lambda **options: networks.create("taps", (8, 8, 1), **options)
    assert make(taps="1+2", shares="0.5+1") == Taps((1, 2), (0.5, 1.0))
    assert make(taps=3, shares=[0.5]) == Taps((3,), (0.5,))
    assert hash(make(taps=[1, 2])) == hash(Taps((1, 2)))
    assert make(features="16+32") == make(features=[16, 32]) == Taps(features=(16, 32))
    assert Architecture.parse("taps:taps=1+2").network((8, 8, 1)) == Taps((1, 2))


def test_what_cannot_be_registered_is_refused():
    before = dict(networks.NETWORKS)
    for name in ("unet", "kamb_unet"):
        with pytest.raises(ValueError, match=f"name '{name}' is taken; taken are"):
            networks.register(name, Registered)
    with pytest.raises(ValueError, match="name must be an identifier.*got 'a:b'"):
        networks.register("a:b", Registered)
    wrongs: list[Any] = [Registered(), dict, lambda x: x]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="cls must be a subclass of flax.linen.Module"):
            networks.register("mine", wrong)
    assert networks.NETWORKS == before
