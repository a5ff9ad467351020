"""What tests/test_devices.py runs in processes of their own: the same work on other devices.

Arguments: output file, devices of this process, process number, number of processes, port.
"""

import os
import sys
from typing import Any

import numpy as np

OUT, DEVICES, PROCESS, PROCESSES, PORT = sys.argv[1], *map(int, sys.argv[2:6])
DEVICES_FLAG = f"--xla_force_host_platform_device_count={DEVICES}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES_FLAG}"

import jax  # noqa: E402  (the flag must be set first)
import jax.numpy as jnp  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402

if PROCESSES > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", PROCESSES, PROCESS)

import dataclasses  # noqa: E402
from collections.abc import Callable  # noqa: E402

import flax.linen as nn  # noqa: E402

import jdiff  # noqa: E402
from jdiff import metrics, noise, parallel  # noqa: E402
from jdiff.denoisers import BottleneckDenoiser, LocalLinearDenoiser  # noqa: E402
from jdiff.metrics import balls, denoising, patches, spectrum  # noqa: E402
from jdiff.sampling import solve, solvers  # noqa: E402


class TwoConvolutions(nn.Module):
    """Convolutions as in a UNet, but compiled in seconds by each of four processes."""

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        h = nn.Conv(16, (3, 3))(x) + nn.Dense(16)(c_noise[:, None])[:, None, None]
        return nn.Conv(x.shape[-1], (3, 3))(nn.silu(h))


class Normalised(nn.Module):
    """Batch statistics of the noisy images themselves, whatever the weights are."""

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        return nn.Dense(1)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))


def measured(data: Any) -> dict[str, Any]:
    """What every name of jdiff.metrics finds, of numbers that 8 does not divide."""
    train, held_out = data.images[:203], data.held_out[:101]
    rng = np.random.default_rng(5)
    # Every third a copy, the others blends of two images.
    blend = data.images[300:401] / 127.5 - 1
    blend[1::3] = (blend[1::3] + train[1:101:3] / 127.5 - 1) / 2
    generated = np.clip(blend + 0.02 * rng.normal(size=blend.shape), -1.5, 1.5).astype("f4")
    generated[::3] = train[:101:3] / 127.5 - 1
    three = generated, train, held_out
    points = [x.reshape(len(x), -1)[:, 20:40] / 64 for x in three]
    optimal, linear = jdiff.OptimalDenoiser.fit(train), jdiff.LinearDenoiser.fit(train)
    key = jax.random.key
    levels = [1.0, 0.3]
    few: Any = {"num_images": 11}
    gains = jnp.linspace(0.1, 0.9, 64).reshape(1, 8, 8, 1)
    plain = lambda y, sigma: gains * y  # with an array that is part of the program
    radii = metrics.ball_radii(train)
    prdc = metrics.prdc(*points, k=3)
    of_verdict = {
        "memorized_fraction": metrics.memorized_fraction(*three),
        "precision": prdc["precision"],
        "frechet_distance": metrics.frechet_distance(*points),
    }
    calls: dict[str, Callable] = {
        "agreements": lambda f: f(train[:101], held_out),
        "authenticity": lambda f: f(*three),
        "ball_radii": lambda f: f(train, 3),
        "bootstrap_mean": lambda f: f(radii, 0),
        "calibrated_distance": lambda f: f(*three),
        "copy_rate": lambda f: f(*three),
        "copying_z": lambda f: f(*three, cells=2, dim=8),
        "cosine": lambda f: f(generated, held_out),
        "coverage": lambda f: f(*three),
        "density": lambda f: f(*three, radii=radii),
        "determination": lambda f: f(generated, held_out),
        "distinct": lambda f: f(np.concatenate([train, train[:9]])),
        "effective_memorization": lambda f: f([100, 200], [1.0, 0.5]),
        "equivariance_error": lambda f: f(plain, train, held_out, levels, key=key(1), **few),
        "explained_by": lambda f: f(
            linear, {"split": parallel.shard(optimal)}, train, held_out, levels, key=key(2), **few
        ),
        "frechet_distance": lambda f: of_verdict["frechet_distance"],
        "inside_balls": lambda f: f(generated, train, radii),
        "jacobian_eigen": lambda f: f(plain, generated[0], 0.5, 2, key=key(3)).values,
        "kernel_distance": lambda f: f(*points),
        "locality_profile": lambda f: f(
            linear, train, held_out, levels, key=key(4), num_pixels=2, **few
        ),
        "memorized_fraction": lambda f: of_verdict["memorized_fraction"],
        "moments": lambda f: f(points[1]),
        "mosaic_consistency": lambda f: {
            "same": f(*three), "any": f(generated[:21], train[:20], held_out[:21], 1, place="any")
        },
        "mse": lambda f: f(generated, held_out),
        "nearest": lambda f: f(generated, train, 4),
        "nearest_cosine": lambda f: f(generated, train, 4),
        "nearest_rms": lambda f: f(*three),
        "nearest_two": lambda f: f(generated, train),
        "parts_interval": lambda f: f(1.0, list(radii[:10])),
        "patch_sources": lambda f: f(*three),
        "pearson_r": lambda f: f(generated, held_out),
        "prdc": lambda f: prdc,
        "precision": lambda f: f(*three, radii=radii),
        "psnr_gap": lambda f: f(optimal, train, held_out, [5.0, 2.0], key=key(5)),
        "r_squared": lambda f: f(generated, held_out),
        "radial_spectrum": lambda f: f(generated),
        "recall": lambda f: f(*three),
        "spectrum_distance": lambda f: f(*three),
        "tile_sources": lambda f: f(generated, train, 4),
        "tile_starts": lambda f: f(10, 4),
        "two_split_agreement": lambda f: f(generated, blend, train, data.images[500:600]),
        "vendi": lambda f: f(*points),
        "verdict": lambda f: f(of_verdict),
        "wilson": lambda f: f(3, 101),
    }  # fmt: skip
    functions = {n for n in metrics.__all__ if not isinstance(getattr(metrics, n), type)}
    assert set(calls) == functions, set(calls) ^ functions
    found: dict[str, Any] = {"denoisers' devices": divided(denoising.placed(optimal).bank.images)}
    parts = {
        "balls": spied(balls, "_tile", 0),
        "patches": spied(patches, "_search", 1),
        "spectrum": spied(spectrum, "_image_spectra", 0),
    }
    compiled, parts["denoising"] = denoising._compiled, []
    denoising._compiled = lambda *kind: watched(compiled(*kind), parts["denoising"], 1)
    for name, call in calls.items():
        flatten(f"measure {name}", call(getattr(metrics, name)), found)
    for name, seen in parts.items():
        found[f"rows {name}"], found[f"first rows {name}"] = np.moveaxis(np.array(seen), 1, 0)
    return found


def spied(module: Any, name: str, axis: int) -> list:
    """The parts that a kernel's answers lie in from now on, a call each."""
    seen: list = []
    setattr(module, name, watched(getattr(module, name), seen, axis))
    return seen


def watched(kernel: Callable, seen: list, axis: int) -> Callable:
    def called(*args: Any, **static: Any) -> Any:
        found = kernel(*args, **static)
        seen.append(divided(found, axis))
        return found

    return called


def divided(array: jax.Array, axis: int = 0) -> list[list[int]]:
    """Rows on each device that holds a part, and the first of them."""
    shards = array.addressable_shards
    assert len({shard.device for shard in shards}) == len(shards)
    rows = [shard.data.shape[axis] for shard in shards]
    return [rows, [shard.index[axis].start or 0 for shard in shards]]


def flatten(name: str, value: Any, found: dict[str, Any]) -> None:
    """All numbers and words of a result, by dotted names."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, tuple | list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            flatten(f"{name}.{key}", inner, found)
    elif value is not None:
        found[name] = np.asarray(value)


def main() -> None:
    assert jax.device_count() == DEVICES * PROCESSES, jax.devices()
    found: dict[str, Any] = {"devices": jax.device_count()}
    data = jdiff.data.load("digits")
    key = jax.random.key(7)
    found["parts"] = len(parallel.replicate(jnp.zeros(3)).addressable_shards)

    # The starting noise alone: a denoiser that returns what it gets, one step.
    identity = jdiff.denoisers.wrap(lambda y, sigma: y, data.image_shape)
    found["noise"] = jdiff.sample(identity, key, 37, sigmas=[1.0, 0.0])
    optimal = jdiff.OptimalDenoiser.fit(data.images)
    for solver in ("ddim", "ddpm"):
        for batch in (8, 16, 64) if DEVICES == 8 else (16,):
            name = f"optimal_{solver}_{batch}"
            found[name] = jdiff.sample(optimal, key, 37, solver=solver, batch_size=batch)
    # In coordinates of its axes, through a scan over shifts, through a posterior over codes.
    closed = {
        "linear": jdiff.LinearDenoiser.fit(data.images),
        "local": LocalLinearDenoiser.fit(data.images, patch_size=3),
        "code": BottleneckDenoiser.fit(data.images, 8, code="posterior"),
        "decoder": BottleneckDenoiser.fit(data.images, 8, decoder="posterior"),
    }
    for name, denoiser in closed.items():
        found[f"closed_{name}"] = jdiff.sample(denoiser, key, 37, solver="heun", batch_size=16)
    start = 10 * jax.random.normal(key, (5, *data.image_shape))
    _, way = solve(optimal, start, noise.karras(4, sigma_max=10.0), record=("x_hat",))
    found["way"] = way["x_hat"]
    # The step's own noise, bit for bit: a denoiser that says 0 leaves only the noise.
    zero = jdiff.denoisers.wrap(lambda y, sigma: 0 * y, data.image_shape)
    _, way = solve(zero, start, [2.0, 1.0, 0.5, 0.0], solver=solvers.ddpm(), key=key, record=("y",))
    found["step_noise"] = way["y"]

    if PROCESSES == 1:
        found |= measured(data)
    if DEVICES == 8:
        try:
            jdiff.study.save(f"{OUT}.split", parallel.shard(optimal))
        except ValueError as error:
            found["refusal to save"] = str(error)

    config = jdiff.TrainConfig(steps=3, batch_size=16, eval_every=3, eval_examples=10)
    result = jdiff.train(Normalised(), data, config, key=key, progress=False)
    for name, value in result.denoiser.variables["batch_stats"]["BatchNorm_0"].items():
        found[f"running_{name}"] = value
    try:
        uneven = dataclasses.replace(config, batch_size=15)
        jdiff.train(Normalised(), data, uneven, key=key, progress=False)
    except ValueError as error:
        found["refusal of 15 images"] = str(error)

    network = TwoConvolutions()
    for optimizer, rate in (("sgd", 0.02), ("adamw", 1e-3)):
        config = jdiff.TrainConfig(
            steps=20,
            batch_size=20,  # does not divide over 8 devices: padded
            learning_rate=rate,
            optimizer=optimizer,
            warmup=0,
            eval_every=20,
            eval_examples=50,
        )
        result = jdiff.train(network, data, config, key=key, progress=False)
        if optimizer == "sgd":
            # Through a run directory that all processes share, twice: the second only reads.
            keep = {"key": key, "run_dir": f"{OUT}.run", "progress": False}
            kept = [jdiff.train(network, data, config, **keep) for _ in range(2)]
            for name, run in zip(("kept", "read_again"), kept, strict=True):
                found[f"{name}_params"] = ravel_pytree(run.denoiser.variables["params"])[0]
            found["steps_read_again"] = kept[1].seconds["train"]
        found[f"{optimizer}_loss"] = result.history["loss"]
        found[f"{optimizer}_held_out_loss"] = result.history["held_out_loss"]
        flat = ravel_pytree(result.denoiser.variables["params"])[0]
        found[f"{optimizer}_params"] = flat
        y = jnp.asarray(np.random.default_rng(0).normal(size=(4, *data.image_shape)), jnp.float32)
        found[f"{optimizer}_x_hat"] = result.denoiser(y, jnp.float32(0.7))
    if PROCESS == 0:
        arrays: Any = {name: np.asarray(value) for name, value in found.items()}
        np.savez(OUT, **arrays)


main()
