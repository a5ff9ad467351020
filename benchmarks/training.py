"""How fast does a network train, at what share of the device's peak?

One row an architecture: images/s of `jdiff.train` itself (drawing of data, noise and levels,
averaged weights and all), the FLOP/s of its model (three forward passes a step, counted in the
jaxpr), their share of a matmul's measured FLOP/s (MFU), seconds of compilation, peak memory.

Compared with, on one device: a bare jitted value-and-grad and AdamW update of the same network
(what the loop costs); the same without jdiff's CPU compiler option; the same network transcribed
with library layers; UNets of other packages of the same channels, in processes that take turns.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jdiff
from benchmarks import bare, hardware, peers, record, suite, timing, transcription
from benchmarks.suite import Case, Skip, device_for_two
from jdiff import networks, parallel
from jdiff.study import Architecture, cost

UNETS = ("unet:width=32,levels=3", "unet:width=32,levels=3,dtype=bfloat16")
SMALL = (
    *("paper_unet:width=32,levels=3", "resnet:width=64,depth=4", "mlp:width=1024,depth=4"),
    "bottleneck_mlp",
)
SWEEP = "unet:width={},levels=3"
# (peer, variant): the closest also as its experts would set it, those on jax also with the compiler
# option that jdiff has.
PEERS = (
    ("diffusers_unet", "default"),
    ("diffusers_unet", "tuned"),
    ("diffusers_unet", "compiled"),
    ("denoising_diffusion_pytorch_unet", "default"),
    ("hackable_diffusion_unet", "default"),
    ("hackable_diffusion_unet", "tuned"),
    ("dewml_unet", "default"),
    ("dewml_unet", "tuned"),
)
JAX_PEERS = ("hackable_diffusion_unet", "dewml_unet", "jdiff_unet")
BOTH = ("train", "forward")
# shape: of the images; batch: of all devices; steps of a measurement; rounds; widths of a sweep;
# sides of a sweep; and, for what is beside, its own shape, batch and steps, the peers and the work.
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        **{"architectures": ("mlp:width=16,depth=2",), "sweep": "mlp:depth=2,width={}"},
        **{"shape": (8, 8, 1), "batch": 16, "steps": 3, "rounds": 2, "widths": (8, 16)},
        **{"sides": (4, 8), "peer_shape": (8, 8, 1), "peer_batch": 4, "channels": (8,)},
        **{"peer_steps": 1, "peers": PEERS, "works": ("train",)},
    },
    "cpu": {
        **{"architectures": (*UNETS, *SMALL), "shape": (32, 32, 3), "sweep": SWEEP},
        **{"batch": 64, "steps": 3, "rounds": 5, "widths": (8, 16, 32, 64), "sides": (8, 16, 32)},
        **{"peer_shape": (32, 32, 3), "peer_batch": 64, "channels": (32, 64, 128)},
        **{"peer_steps": 2, "peers": PEERS, "works": BOTH},
    },
    # Compiling a UNet takes a GPU half a minute, and all suites together have eight: there are
    # few, and what is beside has the batch and steps of the first, which is compiled once for both.
    "accelerator": {
        **{"shape": (32, 32, 3), "batch": 256, "steps": 60, "rounds": 3, "sweep": SWEEP},
        **{"architectures": ("unet:width=32,levels=3", "mlp:width=1024,depth=4")},
        **{"widths": (), "sides": ()},
        **{"peer_shape": (32, 32, 3), "peer_batch": 256, "channels": (32, 64, 128)},
        **{"peer_steps": 60, "peers": (("diffusers_unet", "tuned"),), "works": ("train",)},
    },
}
SIZES["pod"] = SIZES["accelerator"] | {
    **{"batch": 512 * 8, "rounds": 5, "widths": (32, 64, 128, 256), "sides": (16, 32, 64)},
    "architectures": (*UNETS, "unet:width=128,levels=3,dtype=bfloat16", *SMALL),
}


@dataclasses.dataclass(frozen=True)
class Match:
    """What jdiff's UNet and its peers are given alike."""

    shape: tuple[int, int, int]
    batch: int
    channels: tuple[int, ...]
    steps: int
    rounds: int

    @property
    def network(self) -> Any:
        """jdiff's UNet of these channels, one block a level."""
        width, levels = self.channels[0], len(self.channels)
        return networks.create("unet", self.shape, width=width, levels=levels)

    @property
    def about(self) -> dict[str, Any]:
        """The start of a row."""
        return {
            "image_shape": list(self.shape),
            "batch": self.batch,
            "num_params": networks.num_params(self.network, self.shape),
            "flops_per_image": networks.flops_per_image(self.network, self.shape),
        }


def cases(size: str, options: Any) -> list[Case]:
    """Architectures, the loop's cost, the transcription, the peers, two sweeps.

    With architectures of the caller's own, these and the loop's cost alone.
    """
    at = SIZES[size]
    shape, batch = at["shape"], at["batch"]
    chosen = options.architectures or at["architectures"]
    for spec in chosen:
        architecture = Architecture.parse(spec)
        if not architecture.closed_form:
            architecture.network(shape)  # whose options are checked when it is made
    peak = functools.partial(hardware.matmul_peak, size)
    # A program is compiled once and its row is one: the sweeps share their corner.
    train = functools.cache(
        lambda spec, shape: _train(spec, shape, batch, at["steps"], at["rounds"], peak())
    )
    match = Match(
        at["peer_shape"], at["peer_batch"], at["channels"], at["peer_steps"], at["rounds"]
    )
    made = [suite.peak(size)]
    made += [Case(f"train {spec}", functools.partial(train, spec, shape)) for spec in chosen]
    made.append(Case("bare step over loop", lambda: _loop(match)))
    if options.architectures:
        return made
    made.append(Case("compiler option", lambda: _option(match)))
    for work in at["works"]:
        run = functools.partial(_transcription, match, work)
        made.append(Case(f"transcription, {work}", run))
    for peer, variant in at["peers"]:
        for work in at["works"]:
            run = functools.partial(_peer, match, peer, variant, work, options)
            made.append(Case(f"{peer} {variant}, {work}", run))
    if size in ("smoke", "cpu"):  # what is kept is the C library's memory
        for work in at["works"]:
            run = functools.partial(_both_tuned, match, work, options)
            made.append(Case(f"diffusers_unet tuned and jdiff tuned, {work}", run))
    if at["widths"]:
        widths, sides, sweep = at["widths"], at["sides"], at["sweep"]
        made.append(Case("sweep of widths", lambda: _widths(sweep, widths, shape, train)))
        corner = sweep.format(widths[0])
        made.append(Case("sweep of sides", lambda: _sides(corner, sides, shape[2], train)))
    return made


def _trainer(network: Any, shape: tuple, batch: int, steps: int, **more: Any) -> Callable[[], Any]:
    """Trains `network` anew for some steps beyond the first, which compiles; the TrainResult."""
    config = jdiff.TrainConfig(
        steps=steps + 1, batch_size=batch, warmup=0, eval_every=10**6, eval_examples=1, **more
    )
    images = np.random.default_rng(0).integers(0, 256, (1024, *shape), dtype=np.uint8)
    data = jdiff.data.from_arrays(images, held_out=images[:64])
    return lambda: jdiff.train(network, data, config, key=jax.random.key(0), progress=False)


def _train(
    spec: str, shape: tuple, batch: int, steps: int, rounds: int, peak: dict[str, float]
) -> dict[str, Any]:
    architecture = Architecture.parse(spec)
    if architecture.closed_form:
        raise Skip(f"nothing to train: {architecture.name} is a closed form")
    if architecture.per_level:
        raise Skip("one network a level: its steps are those of the network without per_level")
    network = architecture.network(shape)
    train = _trainer(network, shape, batch, steps, preconditioning=architecture.preconditioning)
    with hardware.program_memory() as memory:
        compile_seconds = train().seconds["compile"]
    rates = timing.spread([train().images_per_s for _ in range(rounds)])
    flops = networks.flops_per_image(network, shape)
    dtype = getattr(network, "dtype", "float32")
    return {
        **{"architecture": spec, "image_shape": list(shape), "batch": batch, "dtype": dtype},
        **{"num_params": networks.num_params(network, shape), "flops_per_image": flops},
        **{"images_per_s": rates, "step_seconds": batch / rates["p50"]},
        **hardware.share_of_peak(cost.FORWARDS_A_STEP * flops * rates["p50"], dtype, peak),
        **{"compile_seconds": compile_seconds, "compiled": "the step"},
        **memory,
    }


def _one_device() -> None:
    if parallel.num_devices() > 1:
        raise Skip("jdiff.train uses all devices and the alternative one: compare on one device")


def _ours(match: Match, work: str, steps: int) -> Callable[[], float]:
    """Seconds of a step: of `jdiff.train`, or of a forward pass as the sampler compiles it."""
    if work == "forward":
        run = _bare(match, work)
        return lambda: run(steps)
    train = _trainer(match.network, match.shape, match.batch, max(steps, 2))
    train()
    return lambda: match.batch / train().images_per_s


@functools.lru_cache(maxsize=4)  # several rows hold others against it
def _bare(match: Match, work: str, network: Any = None) -> Callable[[int], float]:
    """The bare step, warm, of jdiff's UNet compiled as jdiff does, or of another as it comes."""
    make = bare.train_steps if work == "train" else bare.forward_steps
    options = parallel.compiler_options(convolutions=True) if network is None else None
    run = make(network or match.network, match.shape, match.batch, options)
    run(1)
    return run


def _loop(match: Match) -> dict[str, Any]:
    _one_device()
    run = _bare(match, "train")
    ways = {
        "bare step": lambda: run(match.steps),
        "jdiff.train": _ours(match, "train", match.steps),
    }
    return {**match.about, **timing.turns(ways, match.rounds)}


def _option(match: Match) -> dict[str, Any]:
    option = parallel.compiler_options(convolutions=True)
    if not option:
        raise Skip("this device's compiler takes no option of jdiff")
    without = bare.train_steps(match.network, match.shape, match.batch, None)
    with_option = _bare(match, "train")
    without(1)
    ways = {
        "bare step without": lambda: without(match.steps),
        "jdiff, bare step with the option": lambda: with_option(match.steps),
    }
    return {**match.about, **timing.turns(ways, match.rounds)}


def _transcription(match: Match, work: str) -> dict[str, Any]:
    _one_device()
    direct: Any = transcription.UNet(channels=match.channels)  # hashable, which its type hides
    run = _bare(match, work, direct)
    ways = {
        "transcription": lambda: run(match.steps),
        "jdiff": _ours(match, work, match.steps),
    }
    if work == "train":  # jdiff.train does more: this is the same work
        same = _bare(match, work)
        ways["jdiff, bare step"] = lambda: same(match.steps)
    return {
        **match.about,
        "peer_num_params": networks.num_params(direct, match.shape),
        "peer_flops_per_image": networks.flops_per_image(direct, match.shape),
        "peer_about": "library layers: nn.Conv, nn.GroupNorm, repeated pixels; plain jax.jit",
        **timing.turns(ways, match.rounds),
    }


def _peer(match: Match, peer: str, variant: str, work: str, options: Any) -> dict[str, Any]:
    _one_device()
    if peer in JAX_PEERS:
        device_for_two()
    with peers.Peer(peer, _asked(match, work, variant), options.peer_python) as other:
        _same_device(other)
        ours = _ours(match, work, match.steps)
        ways = {peer: lambda: other.steps(match.steps), "jdiff": ours}
        return {**match.about, **_of_peer(other), **timing.turns(ways, match.rounds)}


def _both_tuned(match: Match, work: str, options: Any) -> dict[str, Any]:
    """The closest peer and jdiff's bare step, each in a process that keeps its memory."""
    _one_device()
    device_for_two()
    asked = _asked(match, work, "tuned")
    with peers.Peer("diffusers_unet", asked, options.peer_python) as other:
        _same_device(other)
        with peers.Peer("jdiff_unet", asked) as ours:
            ways = {
                "diffusers_unet tuned": lambda: other.steps(match.steps),
                "jdiff, bare step, memory kept": lambda: ours.steps(match.steps),
            }
            return {**match.about, **_of_peer(other), **timing.turns(ways, match.rounds)}


def _asked(match: Match, work: str, variant: str) -> dict[str, Any]:
    """What a peer is told."""
    return {
        **{"image_shape": list(match.shape), "batch": match.batch},
        **{"channels": list(match.channels), "layers_per_block": 1, "work": work},
        **{"variant": variant, "threads": record.cores()},
    }


def _same_device(other: peers.Peer) -> None:
    on_cpu = "cpu" in other.about["device"].lower()
    if on_cpu != (jax.default_backend() == "cpu"):
        raise Skip(f"it runs on {other.about['device']}, jdiff on {record.device()}")


def _of_peer(other: peers.Peer) -> dict[str, Any]:
    return {f"peer_{name}": value for name, value in other.about.items()}


def _widths(sweep: str, widths: tuple, shape: tuple, train: Any) -> list[dict[str, Any]]:
    """One network at several widths: seconds a step against the width."""
    specs = {sweep.format(width): width for width in widths}
    works = {spec: (width, functools.partial(train, spec, shape)) for spec, width in specs.items()}
    return suite.sweep("width", works, _STEP)


def _sides(spec: str, sides: tuple, channels: int, train: Any) -> list[dict[str, Any]]:
    """One network at several resolutions: seconds a step against the number of pixels."""
    works = {f"{s} x {s}": (s**2, functools.partial(train, spec, (s, s, channels))) for s in sides}
    return suite.sweep(f"pixels, {spec}", works, _STEP)


_STEP = {"seconds": lambda row: row["step_seconds"]}
