"""Programs whose rows are divided over eight devices, which need not be there to trace them.

tests/test_devices.py runs them on eight; here they are read: each device sees its part of the rows
and all of the rest, asks no other device, and the programs lower for accelerators.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding

from jdiff import parallel
from jdiff.denoisers import LinearDenoiser
from jdiff.metrics import balls, denoising, locality, patches, spectrum

MESH = AbstractMesh((8,), (parallel.AXIS,), axis_types=(AxisType.Auto,))
SPLIT, SPLIT_SECOND, WHOLE = parallel.SPLIT, parallel.SPLIT_SECOND, parallel.WHOLE
ROWS, PART = 104, 13  # a number that no other axis has


def laid(spec, dtype: str, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(MESH, spec))


def tile() -> tuple[Callable, tuple]:
    own = laid(SPLIT, "f4", ROWS, 64), laid(SPLIT, "f4", ROWS), laid(SPLIT, "f4", ROWS)
    whole = laid(WHOLE, "u1", 900, 64), laid(WHOLE, "f4", 900), laid(WHOLE, "f4", 64)
    program = functools.partial(balls._tile, block=300, images=True, mesh=MESH)
    return program, (*own, *whole, laid(WHOLE, "i4"))


def windows(anywhere: bool) -> tuple[Callable, tuple]:
    options = {"k": 3, "size": (8, 8), "anywhere": anywhere}
    own = laid(SPLIT_SECOND, "f4", 1 if anywhere else 64, ROWS, 9)
    program = functools.partial(patches._search, block=20, mesh=MESH, **options)
    return program, (own, laid(WHOLE, "u1", 50, 8, 8, 1), laid(WHOLE, "i4", 2))


def spectra() -> tuple[Callable, tuple]:
    program = functools.partial(spectrum._image_spectra, mesh=MESH)
    return program, (laid(SPLIT, "u1", ROWS, 8, 8, 1), laid(WHOLE, "f4", 64, 7))


def denoised(ask: Callable, *extra: jax.ShapeDtypeStruct) -> tuple[Callable, tuple]:
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    denoiser = LinearDenoiser.fit(images)
    denoiser = jax.tree.map(lambda leaf: laid(WHOLE, leaf.dtype.str, *leaf.shape), denoiser)
    own = laid(SPLIT, "u1", ROWS, 8, 8, 1), laid(SPLIT, "i4", ROWS)
    rest = jax.random.key(0), laid(WHOLE, "f4", 3), extra
    return denoising._compiled(ask, False, MESH), (denoiser, *own, *rest)


PROGRAMS: dict[str, Callable[[], tuple[Callable, tuple]]] = {
    "balls": tile,
    "mosaic-same": functools.partial(windows, False),
    "mosaic-any": functools.partial(windows, True),
    "spectrum": spectra,
    "answers": functools.partial(denoised, denoising._answer, laid(WHOLE, "i4", 2)),
    "locality": functools.partial(denoised, locality._gradients, laid(WHOLE, "i4", 2, 2)),
}


@functools.cache
def traced(name: str):
    program, arguments = PROGRAMS[name]()
    return jax.jit(program).trace(*arguments)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def program_of_a_device(name: str):
    shards = [e for e in equations(traced(name).jaxpr) if e.primitive.name == "shard_map"]
    assert len(shards) == 1
    return shards[0].params["jaxpr"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_device_works_on_its_part_of_the_rows(name):
    inner = list(equations(program_of_a_device(name)))
    shapes = [variable.aval.shape for e in inner for variable in e.outvars]
    assert any(PART in shape for shape in shapes)
    assert not any(ROWS in shape for shape in shapes)


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_need_nothing_of_other_devices(name):
    kinds = ("psum", "pmax", "pmin", "all_", "ppermute", "reduce_scatter", "axis_index")
    found = [e.primitive.name for e in equations(program_of_a_device(name))]
    assert len(found) > 5
    assert not [kind for kind in found if kind.startswith(kinds)]


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_lowers_for_accelerators(name, platform):
    text = traced(name).lower(lowering_platforms=(platform,)).as_text()
    assert "num_partitions = 8" in text
