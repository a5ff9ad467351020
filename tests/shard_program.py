"""What tests/test_devices.py runs in processes of their own: a training set split over devices.

Arguments: output file, devices of this process, process number, number of processes, port.
"""

import os
import sys
from typing import Any

import numpy as np

OUT, DEVICES, PROCESS, PROCESSES, PORT = sys.argv[1], *map(int, sys.argv[2:6])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402  (the flag must be set first)

if PROCESSES > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", PROCESSES, PROCESS)

import flax.struct  # noqa: E402
import jax.numpy as jnp  # noqa: E402

import jdiff  # noqa: E402
from jdiff import metrics, noise, parallel  # noqa: E402
from jdiff.denoisers import BottleneckDenoiser, OptimalDenoiser  # noqa: E402
from jdiff.metrics import balls, neighbors, shortlist  # noqa: E402
from jdiff.sampling import solve  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

N = 1003  # divides over neither 4 nor 8 devices
SIGMAS = np.repeat([50, 3, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005], 4).astype(np.float32)


class Halved(flax.struct.PyTreeNode):
    """A denoiser that holds another: the sampler finds out that this one is split."""

    inner: Any
    image_shape: tuple = flax.struct.field(pytree_node=False, default=(8, 8, 1))
    sigmas: Any = None

    def __call__(self, y: jax.Array, sigma: jax.Array, labels: Any = None) -> jax.Array:
        return 0.5 * self.inner(y, sigma, labels)


def training_set() -> tuple[np.ndarray, np.ndarray]:
    """Digits sorted by class, so that most devices lack most classes; ten have a far twin."""
    data = jdiff.data.load("digits")
    assert data.labels is not None
    order = np.argsort(data.labels[:N], kind="stable")
    images, labels = data.images[:N][order], data.labels[:N][order]
    images[990:1000] = images[:10]
    centre = images[990:1000, 4, 4, 0].astype(int)
    images[990:1000, 4, 4, 0] = np.where(centre < 250, centre + 3, centre - 3)
    return images, labels


def denoisers(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    weights = np.random.default_rng(1).uniform(0.2, 1, N)
    weights[200:520] = 0  # the whole part of a device, of four and of eight
    return {
        "weights": OptimalDenoiser.fit(images, weights, block_size=50),
        "classes": OptimalDenoiser.fit(images, labels=labels, block_size=50),
        "five": OptimalDenoiser.fit(images[200:205], labels=[0, 1, 0, 1, 1]),
        "decoder": BottleneckDenoiser.fit(images, 8, decoder="posterior", block_size=64),
        "code": BottleneckDenoiser.fit(images, 8, code="posterior"),
    }


def follow(name: str, fitted: Any, y: jax.Array) -> dict[str, Any]:
    """All that a user may do with a denoiser, by name; on one device `shard` changes nothing."""
    denoiser = parallel.shard(fitted)
    found: dict[str, Any] = {}
    keep = lambda what, array: found.update({f"{name} {what}": array})
    classes = getattr(fitted, "num_classes", None)
    labels = None if classes is None else np.arange(len(y)) % (classes + 1)  # the null class too
    keep("call", denoiser(y, SIGMAS, None if labels is None else jnp.asarray(labels)))
    grid = noise.karras(8, sigma_max=20.0)
    options: Any = {"solver": "heun", "labels": None if labels is None else labels[:9]}
    start = 20 * y[:9] / SIGMAS[:9, None, None, None]
    keep("end", solve(denoiser, start, grid, **options))  # perhaps in coordinates
    keep("way", solve(denoiser, start, grid, record=("x_hat",), **options)[1]["x_hat"])
    if name in ("classes", "code"):
        labels = None if labels is None else labels[:21]
        options = {"solver": "ddpm", "sigmas": grid, "batch_size": 8, "labels": labels}
        keep("samples", jdiff.sample(denoiser, jax.random.key(7), 21, **options))
    if name in ("weights", "five"):
        for what, array in denoiser.posterior(y, SIGMAS)._asdict().items():
            keep(f"named {what}", array)
    if name == "weights":
        keep("halved way", solve(Halved(denoiser), start, grid, record=("x_hat",))[1]["x_hat"])
        direction = jax.random.normal(jax.random.key(8), y.shape)
        pull = lambda d, y, v: jax.vjp(lambda y: d(y, jnp.float32(0.5)), y)[1](v)[0]
        push = lambda d, y, v: jax.jvp(lambda y: d(y, jnp.float32(0.5)), (y,), (v,))[1]
        keep("vjp", jax.jit(pull)(denoiser, y, direction))
        keep("jvp", jax.jit(push)(denoiser, y, direction))
    return found


def layout(fitted: dict[str, Any]) -> dict[str, Any]:
    """Where the parts of the training sets lie."""
    found: dict[str, Any] = {}
    for name, denoiser in fitted.items():
        bank = parallel.shard(denoiser).bank
        for field in ("images", "log_weights", "values"):
            array = getattr(bank, field)
            if array is not None:
                shards = array.addressable_shards
                found[f"parts {name} {field}"] = [shard.data.shape[0] for shard in shards]
                found[f"devices {name} {field}"] = len({shard.device for shard in shards})
                first = [shard.index[0].start or 0 for shard in shards]
                found[f"first {name} {field}"] = first
    return found


def compiled_programs(y: jax.Array) -> dict[str, Any]:
    """What only compiled programs of several devices can show."""
    found: dict[str, Any] = {}
    rng, temporary = np.random.default_rng(2), []
    for n in (4096, 8 * 4096):
        images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
        split = parallel.shard(OptimalDenoiser.fit(images, block_size=256))
        call = jax.jit(lambda d, y: d(y, jnp.float32(0.05)))
        compiled = call.lower(split, y).compile()
        memory: Any = compiled.memory_analysis()
        temporary.append(memory.temp_size_in_bytes)
        found[f"argument bytes {n}"] = memory.argument_size_in_bytes
        found[f"gathers {n}"] = _gathered_bytes(compiled.as_text())
    found["temporary"] = temporary
    # A twin: what does gather the data is seen to.
    mesh = split.bank.mesh
    gather = parallel.run_whole(lambda x: x, mesh).lower(split.bank.images).compile().as_text()
    found["gathers twin"] = _gathered_bytes(gather)
    try:
        jdiff.sample(
            jdiff.denoisers.wrap(lambda y, s: split(y, s), (8, 8, 1)), jax.random.key(0), 8
        )
    except ValueError as error:
        found["refusal"] = str(error)
    return found


def _gathered_bytes(program: Any) -> int:
    """Lines of a compiled program that gather bytes, which is what images are."""
    return sum("all-gather" in line and " u8[" in line for line in program.splitlines())


def neighbours(images: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rng = np.random.default_rng(3)
    queries = (images[::25] / 127.5 - 1 + 0.3 * rng.normal(size=(41, 8, 8, 1))).astype(np.float32)
    queries[:9] = images[990:999] / 127.5 - 1  # near twins on the first and the last device
    kernel, meshes, widths = shortlist.shortlist, [], []

    def spy(*args: Any, **static: Any) -> Any:
        meshes.append(1 if static["mesh"] is None else static["mesh"].size)
        widths.append(static["width"])
        return kernel(*args, **static)

    shortlist.shortlist = spy
    none = np.zeros(N)
    search = neighbors._Search(images, none == 0, none, None)
    assert search.device is not None
    shards = search.device[0].addressable_shards
    found["rows"] = [shard.data.shape[0] for shard in shards]
    found["rows' devices"] = len({shard.device for shard in shards})
    found["rows' dtype"] = str(search.device[0].dtype)

    among = np.sort(rng.choice(N, 300, replace=False))
    repeats = np.concatenate([images[:400], np.repeat(images[7:8], 500, 0), images[400:500]])
    features = rng.normal(size=(N, 5))
    cases: dict[str, Any] = {
        "images": metrics.nearest(queries, images, 5),
        "blocks": metrics.nearest(queries, images, 5, block_size=37),
        "among": metrics.nearest(queries, images, 5, among=among),
        "self": metrics.nearest(features, features, 5, exclude_self=True),
        "repeats": metrics.nearest(images[7:9], repeats, 3),
        "three": metrics.nearest(queries, images[:3], 2),
        "cosine": metrics.nearest_cosine(queries, images, 5),
    }
    for name, (measured, indices) in cases.items():
        found[f"near {name}"], found[f"numbers {name}"] = measured, indices
    radii = metrics.nearest(images, images, 3, exclude_self=True).distances[:, -1]
    found["near balls"] = metrics.inside_balls(queries, images, radii)
    a, b = rng.normal(size=(2, 50, 3))
    found["near balls of fifty"] = metrics.inside_balls(a, b, np.full(50, 0.4))
    found["mesh sizes"], found["widths"] = meshes, widths
    return found


def measures(denoiser: Any, images: np.ndarray) -> dict[str, Any]:
    """Of a denoiser that is split, and of rows that are, in each process over its own devices."""
    held_out = jdiff.data.load("digits").held_out[:51]
    split, key = parallel.shard(denoiser), jax.random.key
    given: Any = (images, held_out, [5.0, 2.0])
    few: Any = {"num_images": 11}
    locality = metrics.locality_profile(split, *given, key=key(3), num_pixels=2, **few)
    shrink = lambda y, sigma: y / (1 + sigma**2)
    explained = metrics.explained_by(split, {"shrink": shrink}, *given, key=key(4), **few)
    found = {
        "psnr": metrics.psnr_gap(split, *given, key=key(1), **few),
        **dict(zip(("equivariance 1", "equivariance 2"), metrics.equivariance_error(
            split, *given, key=key(2), **few
        ), strict=True)),
        **{f"locality {i}": measure for i, measure in enumerate(locality)},
        "explained": explained["shrink"]["pearson_r"],
        "mosaic": metrics.mosaic_consistency(held_out, images, held_out),
    }  # fmt: skip
    arrays: dict[str, Any] = {name: measure.per_sample for name, measure in found.items()}
    radii = metrics.ball_radii(images)
    arrays["balls"] = balls.in_balls(held_out, images, radii=radii).inside
    arrays["spectra"] = metrics.radial_spectrum(held_out).power
    return {f"measured {name}": array for name, array in arrays.items()}


def main() -> None:
    assert jax.device_count() == DEVICES * PROCESSES, jax.devices()
    found: dict[str, Any] = {"devices": jax.device_count(), "local": jax.local_device_count()}
    images, labels = training_set()
    rng = np.random.default_rng(0)
    chosen = np.resize([0, 990, 3, 993, 100, 300, 600, 900], len(SIGMAS))
    normal = rng.normal(size=(len(SIGMAS), 8, 8, 1))
    clean = images[chosen] / 127.5 - 1
    y = jnp.asarray(clean + SIGMAS[:, None, None, None] * normal, jnp.float32)
    fitted = denoisers(images, labels)
    for name, denoiser in fitted.items():
        found |= follow(name, denoiser, y)
    found |= layout(fitted) | measures(fitted["weights"], images) | neighbours(images)
    if DEVICES == 8:
        found |= compiled_programs(y)
    if PROCESS == 0:
        arrays: Any = {name: np.asarray(value) for name, value in found.items()}
        np.savez(OUT, **arrays)


main()
