"""Nothing is CPU-only: programs lower for TPU and CUDA and hold nothing slow or wrong there.

All but the last tests work on a CPU machine: they read the traced programs. Every check has a twin
that shows that it can fail. The last ones need a GPU or TPU (`pytest -m accelerator`).
"""

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding

import jdiff
from jdiff import denoisers, networks, noise, parallel
from jdiff._exact import HIGHEST, dot
from jdiff.metrics import denoising, jacobian, locality, patches, shortlist
from jdiff.sampling import sampler, solvers
from jdiff.training import TrainConfig
from jdiff.training.step import programs

SHAPE = (8, 8, 1)
N, D, BATCH, BLOCK = 512, 64, 4, 64
# One call makes several steps inside a loop, as on TPU and GPU.
CONFIG = TrainConfig(steps=10, batch_size=BATCH, warmup=1, eval_examples=BATCH, steps_per_call=3)

float32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
int32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)


# What is looked at: the programs, as they are traced in use.


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, *SHAPE), dtype=np.uint8)


def labels() -> np.ndarray:
    return np.arange(N, dtype=np.int32) % 3


def network(name: str) -> jdiff.NetworkDenoiser:
    module = module_of(name)
    variables = jax.eval_shape(lambda: networks.init(module, jax.random.key(0), SHAPE))
    return jdiff.NetworkDenoiser.create(module, variables, SHAPE, data_std=0.5)


def module_of(name: str):
    return networks.create(
        name.partition("-")[0],
        SHAPE,
        **({"width": 8, "levels": 2} if name == "unet" else {"width": 16, "depth": 2}),
        num_classes=3 if name.endswith("classes") else None,
    )


DENOISERS: dict[str, Callable] = {
    "optimal": lambda: jdiff.OptimalDenoiser.fit(images(), block_size=BLOCK),
    "optimal-classes": lambda: jdiff.OptimalDenoiser.fit(
        images(), labels=labels(), block_size=BLOCK
    ),
    "linear": lambda: jdiff.LinearDenoiser.fit(images()),
    "mlp-classes": lambda: network("mlp-classes"),
    "unet": lambda: network("unet"),
    "function": lambda: jdiff.denoisers.wrap(
        lambda y, s: y / (1 + jnp.reshape(s, (-1, 1, 1, 1))), SHAPE
    ),
}
# Closed forms beyond the first two: traced with the solver that calls them twice a step.
LEVELS = [10.0, 1.0, 0.05, 0.0]
CLOSED_FORMS: dict[str, Callable] = {
    "local": lambda: denoisers.LocalLinearDenoiser.fit(images(), patch_size=3),
    "equivariant": lambda: denoisers.EquivariantLinearDenoiser.fit(images()),
    "equivariant-patch": lambda: denoisers.EquivariantLinearDenoiser.fit(images(), patch_size=3),
    "polynomial": lambda: denoisers.PolynomialDenoiser.fit(images(), 1, LEVELS),
    "random-polynomial": lambda: denoisers.RandomPolynomialDenoiser.fit(
        images(), 3, LEVELS, jax.random.key(0), 16
    ),
    "patch-polynomial": lambda: denoisers.PatchPolynomialDenoiser.fit(
        images(), 3, LEVELS, (None, 5, 3), jax.random.key(0), num_features=8
    ),
    "bottleneck": lambda: denoisers.BottleneckDenoiser.fit(images(), 4),
    "bottleneck-decoder": lambda: denoisers.BottleneckDenoiser.fit(
        images(), 4, decoder="posterior", block_size=BLOCK
    ),
    "bottleneck-code": lambda: denoisers.BottleneckDenoiser.fit(images(), 4, code="posterior"),
}
# A training set split over eight devices, which need not be there for a program to be traced.
MESH = AbstractMesh((8,), (parallel.AXIS,), axis_types=(AxisType.Auto,))
PART = N // MESH.size
SPLIT: dict[str, Callable] = {
    "split": lambda: on_mesh(jdiff.OptimalDenoiser.fit(images(), block_size=16)),
    "split-classes": lambda: on_mesh(
        jdiff.OptimalDenoiser.fit(images(), labels=labels(), block_size=16)
    ),
    "split-decoder": lambda: on_mesh(
        denoisers.BottleneckDenoiser.fit(images(), 4, decoder="posterior", block_size=16)
    ),
}


def on_mesh(fitted):
    """As `parallel.shard` makes it, without the devices and without the values."""
    bank = fitted.bank.replace(mesh=MESH)
    in_part = lambda path: path[0].name in bank.sharded_fields
    place = lambda path, leaf: laid(leaf, parallel.SPLIT if in_part(path) else parallel.WHOLE)
    bank = jax.tree_util.tree_map_with_path(place, bank)
    rest = dataclasses.replace(fitted, bank=None)
    whole = jax.tree.map(lambda leaf: laid(leaf, parallel.WHOLE), rest)
    return dataclasses.replace(whole, bank=bank)


def laid(array, spec) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(MESH, spec))


# In denoisers/, apart from network.py.
EXACT = ("optimal", "optimal-classes", "linear", *CLOSED_FORMS, *SPLIT)
denoiser = functools.cache(lambda name: {**DENOISERS, **CLOSED_FORMS, **SPLIT}[name]())


def sampling_program(name: str, solver: str, **options) -> tuple[Callable, tuple]:
    grid = np.array([10.0, 1.0, 0.05, 0.0], np.float32)
    rows = (BATCH,) if name in SPLIT else (jax.local_device_count(), BATCH)
    stacked = lambda dtype, *shape: jax.ShapeDtypeStruct((*rows, *shape), dtype)
    wanted = stacked(jnp.int32) if name.endswith("classes") else None
    y = None if options.get("start", True) else stacked(jnp.float32, *SHAPE)
    options = {"record": None, "start": True, **options}
    program = sampler._program(denoiser(name), solvers.SOLVERS[solver], wanted, **options)
    return program, ((denoiser(name), grid, jax.random.key(0)), (stacked(jnp.int32), y, wanted))


def training_program(name: str, which: str) -> tuple[Callable, tuple]:
    compiled = programs(module_of(name), CONFIG, SHAPE)
    key = jax.random.key(0)
    if which == "init":
        return compiled.init, (key,)
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((jax.local_device_count(), *leaf.shape), leaf.dtype),
        jax.eval_shape(compiled.init, key),
    )
    classes = name.endswith("classes")
    cdf = np.linspace(0, 1, N, dtype=np.float32) if classes else None  # weighted images
    data = (images(), labels() if classes else None, cdf, np.float32(0.5), key, None)
    if which == "step":
        return compiled.call, (state, (data, np.int32(2)))
    return compiled.evaluate, (state.ema, (data, np.int32(0)))


def shortlist_program(kind: str, mesh: AbstractMesh | None = None) -> tuple[Callable, tuple]:
    rows = images().reshape(N, D) if kind == "images" else float32(N, D)
    options = {"width": 5, "block": BLOCK if mesh is None else 16, "images": kind == "images"}
    function = functools.partial(shortlist.shortlist, **options, mesh=mesh)
    allowed = jax.ShapeDtypeStruct((N,), bool)
    arguments = (float32(BATCH, D), float32(BATCH), int32(BATCH))
    divided = (rows, float32(N), allowed, float32(N))
    if mesh is not None:
        divided = tuple(laid(array, parallel.SPLIT) for array in divided)
    return jax.jit(function), (*arguments, *divided, float32(D))


def squares_program(mesh: AbstractMesh | None = None) -> tuple[Callable, tuple]:
    block = BLOCK if mesh is None else 16
    function = functools.partial(shortlist.squares, block=block, images=True, mesh=mesh)
    rows = images().reshape(N, D)
    rows = rows if mesh is None else laid(rows, parallel.SPLIT)
    return jax.jit(function), (rows, float32(D))


def posterior_program(name: str) -> tuple[Callable, tuple]:
    named = jax.jit(lambda denoiser, y, sigma: denoiser.posterior(y, sigma))
    return named, (denoiser(name), float32(BATCH, *SHAPE), float32(BATCH))


def measure_program(ask: Callable, *extra) -> tuple[Callable, tuple]:
    """A measure of the optimal denoiser, whose own memory must not grow."""
    key = jax.random.key(0)
    levels = float32(3)
    arguments = (denoiser("optimal"), images()[:BATCH], int32(BATCH), key, levels, extra)
    return denoising._compiled(ask, False), arguments


def jacobian_program() -> tuple[Callable, tuple]:
    arguments = (denoiser("optimal"), float32(*SHAPE), float32(), float32(3, *SHAPE))
    return jacobian._compiled(False), arguments


def patches_program(anywhere: bool) -> tuple[Callable, tuple]:
    options = {"k": 3, "size": SHAPE[:2], "anywhere": anywhere}
    windows = float32(1, BATCH, 9) if anywhere else float32(D, BATCH, 9)
    search = functools.partial(patches._search, block=8, **options)
    return jax.jit(search), (windows, images(), int32(2))


PROGRAMS: dict[str, Callable[[], tuple[Callable, tuple]]] = {
    **{
        f"sample-{name}-{solver}": functools.partial(sampling_program, name, solver)
        for name in DENOISERS
        for solver in solvers.SOLVERS
    },
    **{
        f"sample-{name}-heun": functools.partial(sampling_program, name, "heun")
        for name in (*CLOSED_FORMS, *SPLIT)
    },
    "solve-linear": functools.partial(  # in images, not in its coordinates
        sampling_program, "linear", "heun", start=False, record=("y",)
    ),
    "solve-optimal": functools.partial(
        sampling_program, "optimal", "heun", start=False, record=("y", "x_hat")
    ),
    **{
        f"{which}-{name}": functools.partial(training_program, name, which)
        for name in ("mlp", "mlp-classes", "unet")
        for which in ("init", "step", "evaluate")
    },
    "shortlist-images": functools.partial(shortlist_program, "images"),
    "shortlist-features": functools.partial(shortlist_program, "features"),
    "squares": squares_program,
    "posterior": functools.partial(posterior_program, "optimal"),
    "solve-split": functools.partial(
        sampling_program, "split", "heun", start=False, record=("y", "x_hat")
    ),
    "shortlist-images-split": functools.partial(shortlist_program, "images", MESH),
    "shortlist-features-split": functools.partial(shortlist_program, "features", MESH),
    "squares-split": functools.partial(squares_program, MESH),
    "posterior-split": functools.partial(posterior_program, "split"),
    "answers": functools.partial(measure_program, denoising._answer, int32(2)),
    "locality": functools.partial(measure_program, locality._gradients, int32(2, 2)),
    "jacobian": jacobian_program,
    "mosaic-same": functools.partial(patches_program, False),
    "mosaic-any": functools.partial(patches_program, True),
}
OVER_DEVICES = [name for name in PROGRAMS if "split" in name]
OF_DENOISERS = ("answers", "locality", "jacobian")
OF_MEASURES = (
    *("shortlist-images", "shortlist-features", "squares", "posterior"),
    *("mosaic-same", "mosaic-any", *OF_DENOISERS),
)
FULL_PRECISION = [
    name
    for name in PROGRAMS
    if name in (*OF_MEASURES, *OVER_DEVICES, "solve-optimal", "solve-linear")
    or name.startswith(tuple(f"sample-{kind}-" for kind in EXACT))
]
# What reads a uint8 data set; `posterior` and `init` have their own tests or none.
READS_IMAGES = [
    name
    for name in PROGRAMS
    if name.startswith(("sample-optimal", "solve-optimal", "step-", "evaluate-"))
    or name == "sample-bottleneck-decoder-heun"
    or name in ("shortlist-images", "squares", "mosaic-same", "mosaic-any", *OF_DENOISERS)
    or (name in OVER_DEVICES and name != "shortlist-features-split")
]


@functools.cache
def traced(name: str, x64: bool = False):
    program, arguments = PROGRAMS[name]()  # built outside: arguments are float32 in any case
    with jax.enable_x64(x64):
        return program.trace(*arguments)


# What is looked for: each function names what it found.


def equations(jaxpr) -> Iterator:
    """All equations, those of inner jaxprs (loops, branches, jit, pmap) too."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    yield from equations(inner)


def callbacks(jaxpr) -> list[str]:
    names = [eqn.primitive.name for eqn in equations(jaxpr)]
    return [n for n in names if "callback" in n or n in ("infeed", "outfeed", "debug_print")]


def contractions(jaxpr) -> list:
    """The precision of each dot and convolution."""
    kinds = ("dot_general", "conv_general_dilated", "ragged_dot_general")
    return [e.params["precision"] for e in equations(jaxpr) if e.primitive.name in kinds]


def coarse(jaxpr) -> list:
    """The contractions below full float32 precision."""
    full = (HIGHEST, (HIGHEST, HIGHEST))
    return [precision for precision in contractions(jaxpr) if precision not in full]


def arrays(jaxpr) -> Iterator:
    for eqn in equations(jaxpr):
        for variable in (*eqn.invars, *eqn.outvars):
            if hasattr(variable.aval, "shape"):
                yield variable.aval


def float64_arrays(jaxpr) -> list[str]:
    """Arrays of rank 1 or more; optimizers carry float64 scalars under x64."""
    found = {str(a) for a in arrays(jaxpr) if a.ndim > 0 and a.dtype == np.float64}
    return sorted(found)


def float_copies(jaxpr, rows: int = N) -> list[str]:
    """Floating arrays with as many values as the data set, or as a part of so many rows."""
    is_copy = lambda a: a.size >= N * D or a.size == rows * D
    return sorted(
        {str(a) for a in arrays(jaxpr) if is_copy(a) and jnp.issubdtype(a.dtype, jnp.floating)}
    )


def collectives(jaxpr) -> list:
    """What comes out of each exchange between devices."""
    kinds = ("psum", "pmax", "pmin", "all_gather", "all_to_all", "ppermute", "reduce_scatter")
    exchanges = [e for e in equations(jaxpr) if e.primitive.name.startswith(kinds)]
    return [variable.aval for e in exchanges for variable in e.outvars]


# Together, which takes half the time: what either cannot do fails.
BOTH = ("tpu", "cuda")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_lower_for_accelerators(name):
    lowered = traced(name).lower(lowering_platforms=BOTH)
    assert "func.func public @main" in lowered.as_text()


@pytest.mark.core
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_hold_no_callback(name):
    assert callbacks(traced(name).jaxpr) == []


@pytest.mark.core
@pytest.mark.parametrize("name", FULL_PRECISION)
def test_closed_forms_and_measures_contract_at_full_precision(name):
    assert coarse(traced(name).jaxpr) == []
    # `squares` is a sum of squares, without a contraction.
    assert (contractions(traced(name).jaxpr) == []) == name.startswith("squares")


@pytest.mark.parametrize("name", ["step-mlp", "step-unet", "sample-unet-heun"])
def test_networks_keep_the_default_precision(name):
    found = contractions(traced(name).jaxpr)
    assert found == coarse(traced(name).jaxpr)
    assert len(found) >= 3


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_hold_no_float64_array(name):
    assert float64_arrays(traced(name, x64=True).jaxpr) == []


@pytest.mark.core
@pytest.mark.parametrize("name", READS_IMAGES)
def test_programs_make_no_float_copy_of_the_data(name):
    found = list(arrays(traced(name).jaxpr))
    assert any(a.size >= N * D and a.dtype == np.uint8 for a in found)  # the data is there
    assert float_copies(traced(name).jaxpr, PART if name in OVER_DEVICES else N) == []


@pytest.mark.core
@pytest.mark.parametrize("name", OVER_DEVICES)
def test_devices_exchange_sums_and_not_data(name):
    jaxpr = traced(name).jaxpr
    parts = {a.shape for a in arrays(jaxpr) if a.size == PART * D}
    assert (PART, D) in parts  # each device sees its part
    exchanged = collectives(jaxpr)
    assert (exchanged == []) == (name == "squares-split")
    # At most the 32 candidates of each query and device, or one image a query.
    assert all(a.size <= BATCH * max(D, 32 * MESH.size) for a in exchanged)


def test_a_users_x64_changes_no_sample():
    # A switch that many turn on for their own code: jax's default float type becomes float64.
    linear, key = denoiser("linear"), jax.random.key(3)
    sample = lambda: jdiff.sample(linear, key, BATCH, sigmas=[9.0, 2.0, 0.3, 0], solver="ddpm")
    expected = sample()
    with jax.enable_x64(True):
        found = sample()
        assert jnp.ones(()).dtype == np.float64  # the switch is on
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_donation_reuses_the_memory_of_the_training_state():
    compiled = traced("step-mlp").lower().compile()
    state = programs(module_of("mlp"), CONFIG, SHAPE).init(jax.random.key(0))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    state = parallel.stack(state)
    assert compiled.memory_analysis().alias_size_in_bytes == size
    (_, shared) = PROGRAMS["step-mlp"]()[1]
    after, _ = compiled(state, parallel.replicate(shared))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert np.asarray(after.step).tolist() == [2] * jax.local_device_count()


# Twins: what each of the checks above is there to refuse.


@pytest.mark.core
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_twin_what_only_a_cpu_can_do_does_not_lower(platform):
    triangular = jax.jit(lambda x: jax.scipy.linalg.schur(x)[0]).trace(float32(4, 4))
    with pytest.raises(NotImplementedError, match=f"platform {platform}"):
        triangular.lower(lowering_platforms=(platform,))


@pytest.mark.core
@pytest.mark.parametrize(("able", "other"), [BOTH, BOTH[::-1]])
def test_twin_what_one_of_the_two_cannot_do_does_not_lower(able, other):
    program = jax.jit(lambda x: jax.lax.platform_dependent(x, **{able: jnp.sin})).trace(float32(4))
    assert "func.func public @main" in program.lower(lowering_platforms=(able,)).as_text()
    with pytest.raises(NotImplementedError, match=f"platforms .*'{other}'"):
        program.lower(lowering_platforms=BOTH)


def host(x):
    return jax.pure_callback(np.sin, x, x)


def printing(x):
    jax.debug.print("{}", x)
    return x


@pytest.mark.core
@pytest.mark.parametrize("function", [host, printing])
@pytest.mark.parametrize("inside", ["plain", "scan", "cond", "pmap"])
def test_twin_a_callback_is_found_wherever_it_stands(function, inside):
    x = jnp.ones((jax.local_device_count(), 2))
    assert callbacks(jax.make_jaxpr(put_inside(function, inside))(x)) != []


@pytest.mark.core
@pytest.mark.parametrize("inside", ["plain", "scan", "cond", "pmap"])
def test_twin_a_contraction_of_default_precision_is_found(inside):
    x = jnp.ones((jax.local_device_count(), 1, 2))
    at_default, at_full = (
        jax.make_jaxpr(put_inside(lambda x, m=multiply: m(x, jnp.ones((2, 2))), inside))(x)
        for multiply in (jnp.matmul, dot)
    )
    assert len(contractions(at_default)) == len(contractions(at_full)) == 1
    assert len(coarse(at_default)) == 1
    assert coarse(at_full) == []


@pytest.mark.core
def test_twin_a_coarse_convolution_is_found():
    convolve = lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME")
    assert coarse(jax.make_jaxpr(convolve)(jnp.ones((1, 1, 4, 4)), jnp.ones((1, 1, 3, 3)))) != []


@pytest.mark.core
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + jnp.zeros(2),  # jax's default type
        lambda x: x * np.log(10),  # a NumPy scalar is float64, a Python one takes x's type
        lambda x: jax.random.normal(jax.random.key(0), (2,)).astype(x.dtype) + x,
    ],
    ids=["zeros", "numpy scalar", "normal"],
)
def test_twin_a_float64_array_is_found(function):
    with jax.enable_x64(True):
        assert float64_arrays(jax.make_jaxpr(function)(float32(2))) != []
    assert float64_arrays(jax.make_jaxpr(function)(float32(2))) == []


@pytest.mark.core
def test_twin_a_float_copy_of_the_data_is_found():
    rows = images().reshape(N, D)
    at_once = lambda rows: jnp.sum(rows.astype(jnp.float32) ** 2, axis=1)
    assert float_copies(jax.make_jaxpr(at_once)(rows)) == [f"float32[{N},{D}]"]
    part = jax.make_jaxpr(at_once)(rows[:PART])
    assert float_copies(part, PART) == [f"float32[{PART},{D}]"]
    assert float_copies(part) == []


@pytest.mark.core
def test_twin_an_exchange_of_the_data_is_found():
    gather = parallel.map_shards(parallel.gather_devices, MESH, (parallel.SPLIT,))
    rows = laid(images().reshape(N, D), parallel.SPLIT)
    assert [a.shape for a in collectives(jax.make_jaxpr(gather)(rows))] == [(MESH.size, PART, D)]


@pytest.mark.core
@pytest.mark.parametrize("donated", [(), (0,)], ids=["kept", "donated"])
def test_twin_without_donation_no_memory_is_reused(donated):
    program = parallel.map_devices(lambda x: x + 1, donate_argnums=donated)
    x = parallel.stack(jnp.zeros(100))
    memory = program.trace(x).lower().compile().memory_analysis()
    assert memory.alias_size_in_bytes == (x.nbytes // len(x) if donated else 0)


def put_inside(function: Callable, where: str) -> Callable:
    """`function` of x[0], or of x itself, inside a loop, a branch or a pmap."""
    if where == "scan":
        return lambda x: jax.lax.scan(lambda carry, row: (carry, function(row)), 0.0, x)
    if where == "cond":
        return lambda x: jax.lax.cond(x.sum() > 0, lambda: function(x[0]), lambda: x[0])
    if where == "pmap":
        return jax.jit(jax.pmap(function))
    return function


# On a device itself.


@pytest.fixture
def accelerator() -> str:
    if jax.default_backend() == "cpu":
        pytest.skip("needs a GPU or TPU; jax sees only the CPU")
    return jax.default_backend()


@pytest.mark.accelerator
@pytest.mark.parametrize("sigma", [80.0, 5.0, 0.5, 0.05, 0.01])
def test_the_posterior_agrees_with_float64_on_a_device(accelerator, sigma, rng):
    # Smooth images, some with a twin three grey levels away: where TF32 or bfloat16 would show.
    train = rng.integers(0, 256, (300, 4, 4, 1)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    train[280:] = train[:20]
    train[280:, 8, 8, 0] ^= 3
    x = (train.astype(np.float32) / np.float32(127.5) - np.float32(1)).reshape(300, -1)
    y = (x[270:290] + sigma * rng.standard_normal((20, 256))).astype(np.float32)
    squared = np.square(y[:, None].astype(np.float64) - x[None]).sum(2)
    p = np.exp((squared.min(1, keepdims=True) - squared) / (2 * sigma**2))
    expected = (p / p.sum(1, keepdims=True)) @ x.astype(np.float64)
    optimal = jdiff.OptimalDenoiser.fit(train, block_size=64)
    found = jax.jit(lambda d, y, s: d(y, s))(optimal, y.reshape(20, 16, 16, 1), jnp.float32(sigma))
    # 1e-4 of the image range, which is 2, as on the CPU.
    np.testing.assert_allclose(np.asarray(found).reshape(20, -1), expected, atol=2e-4)


def draw(out: str) -> None:
    """Samples of every solver and closed form, into an npz; run on the CPU and on the device."""
    found = {}
    for name in ("optimal", "linear"):
        for solver in solvers.SOLVERS:
            samples = jdiff.sample(denoiser(name), jax.random.key(5), 16, solver=solver)
            found[f"{name}-{solver}"] = np.asarray(samples)
    identity = jdiff.denoisers.wrap(lambda y, sigma: y, SHAPE)
    found["noise"] = np.asarray(jdiff.sample(identity, jax.random.key(5), 16, sigmas=[1.0, 0.0]))
    np.savez(out, **found)


@pytest.mark.accelerator
def test_samples_are_those_of_the_cpu(accelerator, tmp_path):
    code = f"import test_accelerators; test_accelerators.draw({str(tmp_path / 'cpu.npz')!r})"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    draw(str(tmp_path / "device.npz"))
    with np.load(tmp_path / "cpu.npz") as cpu, np.load(tmp_path / "device.npz") as device:
        assert sorted(cpu.files) == sorted(device.files)
        # The same bits make the noise; erfinv and log differ in the last place.
        np.testing.assert_allclose(device["noise"], cpu["noise"], atol=1e-5)
        # 18 steps from sigma 80: 80 x 2^-24 at the start, shrunk and summed on the way.
        for name in cpu.files:
            np.testing.assert_allclose(device[name], cpu[name], atol=2e-3, err_msg=name)


@pytest.mark.accelerator
@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_training_runs_and_learns_on_a_device(accelerator, name):
    data = jdiff.data.load("digits")
    config = TrainConfig(steps=40, batch_size=64, warmup=5, eval_every=20)
    result = jdiff.train(module_of(name), data, config, key=jax.random.key(0), progress=False)
    loss = result.history["held_out_loss"]
    assert np.all(np.isfinite(result.history["loss"]))
    assert loss[-1] < loss[0]
    leaf = jax.tree.leaves(result.denoiser.variables)[0]
    assert {device.platform for device in leaf.devices()} != {"cpu"}
    y = jnp.asarray(noise.karras(1)[0] * np.ones((2, *SHAPE), np.float32))
    assert np.all(np.isfinite(np.asarray(result.denoiser(y, jnp.float32(80.0)))))
