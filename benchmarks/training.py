"""How fast does a network train, at what share of the device's peak?

One row an architecture: images/s of `jdiff.train` itself (drawing of data, noise and levels,
averaged weights and all), the FLOP/s of its model (three forward passes a step, counted in the
jaxpr), their share of a matmul's measured FLOP/s (MFU), seconds of compilation, peak memory.

Compared with: a bare jitted value-and-grad and AdamW update of the same network (what the loop
costs); the same without jdiff's CPU compiler option; the same network transcribed with library
layers; UNets of other packages of the same channels, in processes of their own that take turns.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jdiff
from benchmarks import bare, hardware, peers, timing, transcription
from benchmarks.suite import Case
from jdiff import networks, parallel
from jdiff.study import Architecture

UNETS = ("unet:width=32,levels=3", "unet:width=32,levels=3,dtype=bfloat16")
SMALL = (
    *("paper_unet:width=32,levels=3", "resnet:width=64,depth=4", "mlp:width=1024,depth=4"),
    "bottleneck_mlp",
)
SWEEP = "unet:width={},levels=3"
# shape: of the images; batch: of all devices; steps of a measurement; rounds; widths of a sweep;
# sides of a sweep; and, for the peers, their own shape and batch.
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        **{"architectures": ("unet:width=4,levels=1",), "sweep": "mlp:depth=2,width={}"},
        **{"shape": (8, 8, 1), "batch": 16, "steps": 3, "rounds": 2, "widths": (8, 16)},
        **{"sides": (4, 8), "peer_shape": (8, 8, 1), "peer_batch": 4, "channels": (8,)},
        **{"peer_steps": 1},
    },
    "cpu": {
        **{"architectures": (*UNETS, *SMALL), "shape": (32, 32, 3), "sweep": SWEEP},
        **{"batch": 64, "steps": 3, "rounds": 5, "widths": (8, 16, 32, 64), "sides": (8, 16, 32)},
        **{"peer_shape": (32, 32, 3), "peer_batch": 64, "channels": (32, 64, 128)},
        **{"peer_steps": 2},
    },
    # Compiling a UNet takes a GPU the better part of a minute, so there are few.
    "accelerator": {
        **{"shape": (32, 32, 3), "batch": 512, "steps": 60, "rounds": 5, "sweep": SWEEP},
        "architectures": (
            *("unet:width=32,levels=3", "unet:width=128,levels=3,dtype=bfloat16"),
            "mlp:width=1024,depth=4",
        ),
        **{"widths": (), "sides": ()},
        **{"peer_shape": (32, 32, 3), "peer_batch": 64, "channels": (32, 64, 128)},
        **{"peer_steps": 50},
    },
}
SIZES["pod"] = SIZES["accelerator"] | {
    **{"batch": 512 * 8, "architectures": (*UNETS, *SMALL)},
    **{"widths": (32, 64, 128, 256), "sides": (16, 32, 64)},
}
VARIANTS = ("default", "tuned")
PEERS = ("denoising_diffusion_pytorch_unet", "hackable_diffusion_unet", "dewml_unet")


def cases(size: str, options: Any) -> list[Case]:
    """Architectures, the loop's cost, the transcription, the peers, two sweeps."""
    at = SIZES[size]
    shape, batch, steps, rounds = (at[name] for name in ("shape", "batch", "steps", "rounds"))
    chosen = options.architectures or at["architectures"]
    peak = functools.cache(lambda: hardware.matmul_peak(size))
    train = functools.cache(  # the sweeps share their corner
        lambda spec, shape=shape: _train(spec, shape, batch, steps, rounds, peak())
    )
    made = [Case("matmul peak", lambda: {"flops_per_s": peak()})]
    made += [Case(f"train {spec}", functools.partial(train, spec)) for spec in chosen]
    unet = networks.create(
        "unet",
        at["peer_shape"],
        width=at["channels"][0],
        levels=len(at["channels"]),
    )
    about = (unet, at["peer_shape"], at["peer_batch"], at["peer_steps"], rounds)
    made += [
        Case("loop over bare step", lambda: _loop(*about)),
        Case("compiler option", lambda: _option(*about)),
        Case("transcription, train", lambda: _transcription(*about, at["channels"], "train")),
        Case("transcription, forward", lambda: _transcription(*about, at["channels"], "forward")),
    ]
    # The closest peer first, also as its experts would set it.
    for peer, variant, work in (
        *(
            ("diffusers_unet", variant, work)
            for work in ("train", "forward")
            for variant in VARIANTS
        ),
        *((peer, "default", work) for peer in PEERS for work in ("train", "forward")),
    ):
        run = functools.partial(_peer, *about, at["channels"], peer, variant, work, options)
        made.append(Case(f"{peer} {variant}, {work}", run))
    if not at["widths"]:
        return made
    made.append(Case("sweep of widths", lambda: _widths(at["sweep"], at["widths"], train)))
    made.append(Case("sweep of sides", lambda: _sides(at["sweep"], at["widths"][0], at["sides"],
                                                      shape[2], train)))  # fmt: skip
    return made


def _data(shape: tuple[int, int, int]) -> jdiff.data.ImageData:
    images = np.random.default_rng(0).integers(0, 256, (1024, *shape), dtype=np.uint8)
    return jdiff.data.from_arrays(images, held_out=images[:64])


def _trainer(network: Any, shape: tuple, batch: int, steps: int, **more: Any) -> Callable[[], Any]:
    """Trains `network` anew for some steps beyond the first, which compiles; the TrainResult."""
    config = jdiff.TrainConfig(
        steps=steps + 1, batch_size=batch, warmup=0, eval_every=10**6, eval_examples=1, **more
    )
    data, key = _data(shape), jax.random.key(0)
    return lambda: jdiff.train(network, data, config, key=key, progress=False)


def _train(
    spec: str, shape: tuple, batch: int, steps: int, rounds: int, peak: dict[str, float]
) -> dict[str, Any]:
    architecture = Architecture.parse(spec)
    network = architecture.network(shape)
    train = _trainer(network, shape, batch, steps, preconditioning=architecture.preconditioning)
    with hardware.peak_memory() as memory:
        compile_seconds = train().seconds["compile"]
    rates = timing.spread([train().images_per_s for _ in range(rounds)])
    flops = networks.flops_per_image(network, shape)
    dtype = getattr(network, "dtype", "float32")
    model_flops = 3 * flops * rates["p50"]
    return {
        **{"architecture": spec, "image_shape": list(shape), "batch": batch, "dtype": dtype},
        **{"num_params": networks.num_params(network, shape), "flops_per_image": flops},
        **{"images_per_s": rates, "step_seconds": batch / rates["p50"]},
        **{"model_flops_per_s": model_flops, "compile_seconds": compile_seconds},
        "mfu": model_flops / (peak[dtype] * parallel.num_devices()),
        **memory,
    }


def _about(network: Any, shape: tuple, batch: int) -> dict[str, Any]:
    return {
        **{"image_shape": list(shape), "batch": batch},
        "num_params": networks.num_params(network, shape),
        "flops_per_image": networks.flops_per_image(network, shape),
    }


def _ours(network: Any, shape: tuple, batch: int, steps: int, work: str) -> Callable[[], float]:
    """Seconds of a step: of `jdiff.train`, or of a forward pass as the sampler compiles it."""
    if work == "forward":
        run = bare.forward_steps(
            network, shape, batch, parallel.compiler_options(convolutions=True)
        )
        run(1)
        return lambda: run(steps)
    train = _trainer(network, shape, batch, steps)
    train()
    return lambda: batch / train().images_per_s


def _loop(network: Any, shape: tuple, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    steps = max(steps, 3)
    run = bare.train_steps(network, shape, batch, parallel.compiler_options(convolutions=True))
    run(1)
    ways = {
        "jdiff.train": _ours(network, shape, batch, steps, "train"),
        "bare step": lambda: run(steps),
    }
    return {**_about(network, shape, batch), **timing.turns(ways, rounds)}


def _option(network: Any, shape: tuple, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    option = parallel.compiler_options(convolutions=True)
    if not option:
        return {"about": "this device's compiler takes no option of jdiff", "ratio": None}
    runs = {
        "without": bare.train_steps(network, shape, batch, None),
        "with the option": bare.train_steps(network, shape, batch, option),
    }
    for run in runs.values():
        run(1)
    ways = {name: lambda run=run: run(max(1, steps // 2)) for name, run in runs.items()}
    return {**_about(network, shape, batch), **timing.turns(ways, rounds)}


def _transcription(
    network: Any, shape: tuple, batch: int, steps: int, rounds: int, channels: tuple, work: str
) -> dict[str, Any]:
    direct = transcription.UNet(channels=channels)
    make = bare.train_steps if work == "train" else bare.forward_steps
    run = make(direct, shape, batch, None)
    run(1)
    ways = {
        "transcription": lambda: run(max(1, steps // 2)),
        "jdiff": _ours(network, shape, batch, max(steps, 2), work),
    }
    if work == "train":  # jdiff.train does more: this is the same work
        bare_step = make(network, shape, batch, parallel.compiler_options(convolutions=True))
        ways["jdiff, bare step"] = lambda: bare_step(max(1, steps // 2))
    return {
        **_about(network, shape, batch),
        "peer_num_params": networks.num_params(direct, shape),
        **timing.turns(ways, rounds),
    }


def _peer(
    network: Any, shape: tuple, batch: int, steps: int, rounds: int, channels: tuple, peer: str,
    variant: str, work: str, options: Any,
) -> dict[str, Any]:  # fmt: skip
    arguments = {
        **{"image_shape": list(shape), "batch": batch, "channels": list(channels)},
        **{"layers_per_block": 1, "work": work, "variant": variant, "threads": None},
    }
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(peers.Peer(peer, arguments, options.pythons))
        other.steps(1)
        ours = _ours(network, shape, batch, max(steps, 2), work)
        ways = {peer: lambda: other.steps(steps), "jdiff": ours}
        return {
            **_about(network, shape, batch),
            **{f"peer_{name}": value for name, value in other.about.items()},
            **timing.turns(ways, rounds),
        }


def _widths(sweep: str, widths: tuple, train: Any) -> list[dict[str, Any]]:
    """One network at several widths: seconds a step against the width."""
    specs = [sweep.format(width) for width in widths]
    rows = [{"part": spec, **train(spec)} for spec in specs]
    seconds = [row["step_seconds"] for row in rows]
    return [*rows, {"part": "seconds against width", **timing.exponent(widths, seconds)}]


def _sides(sweep: str, width: int, sides: tuple, channels: int, train: Any) -> list[dict[str, Any]]:
    """One network at several resolutions: seconds a step against the number of pixels."""
    spec = sweep.format(width)
    rows = [{"part": f"{s} x {s}", **train(spec, shape=(s, s, channels))} for s in sides]
    seconds = [row["step_seconds"] for row in rows]
    fit = timing.exponent([side**2 for side in sides], seconds)
    return [*rows, {"part": f"seconds against pixels, {spec}", **fit}]
