"""The only file that knows of several devices or hosts.

A program is written once for one device, with collectives over the axis name `AXIS`; `map_devices`
runs it on all of them. What every device needs whole (a denoiser, the data set) is placed once by
`replicate`, state that a program updates lives stacked, one copy a device (`stack`), and rows
(samples, queries) are divided by `split`, the last ones padding, and brought back by `collect`.

A training set that outgrows one device is split itself: `shard` gives each device a part of it, all
of them answer every query, and the answers are merged. Such a denoiser carries its devices with
it, so that it is called like any other; a program around it is `run_whole` on all of them.

Measures divide their rows (samples, images) over the devices of their own process: `row_devices`
names them, `rows_a_call` says how many go at a time, `split_rows` and `everywhere` place them and
what all need whole, `map_shards` runs the program. With one device there is no mesh, and the
program is the plain one.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
# How an array lies on several devices: rows divided over them, or all of it on each.
SPLIT = PartitionSpec(AXIS)
SPLIT_SECOND = PartitionSpec(None, AXIS)  # its rows stand on the second axis
WHOLE = PartitionSpec()


def map_devices(
    f: Callable,
    *,
    in_axes: Any = 0,
    donate_argnums: Sequence[int] = (),
    convolutions: bool = False,
) -> Callable:
    """`f`, written for one device, compiled for all devices of all processes.

    In one process this is `jit(pmap(f))`, because pmap alone takes no compiler options; both are
    told what is donated, as either alone copies the state instead of updating it in place. In
    several processes it is the plain pmap: under an outer jit a psum there runs over the local
    devices alone, silently. Every argument must hold at least one array: where the numbers of
    arguments and of arrays agree by chance, pmap pairs `in_axes` with the arrays.

    Args:
      f: a function with collectives over `AXIS`; mapped arguments lose their leading axis.
      in_axes: 0 for arguments stacked over local devices, None for replicated ones.
      donate_argnums: stacked arguments whose memory is reused.
      convolutions: whether `f` runs convolutions, which want an XLA option on the CPU.
    """
    donate_argnums = tuple(donate_argnums)
    mapped = jax.pmap(f, axis_name=AXIS, in_axes=in_axes, donate_argnums=donate_argnums)
    if jax.process_count() > 1:
        return mapped
    options = compiler_options(convolutions)
    return jax.jit(mapped, donate_argnums=donate_argnums, compiler_options=options or None)


def compiler_options(convolutions: bool) -> dict[str, Any]:
    """XLA options for a program, {} except for one with convolutions on the CPU.

    XLA's YNNPACK fusion runs CPU convolutions on one core: without it a training step of a UNet is
    several times faster. Matmuls lose a little, so programs without convolutions keep it.
    """
    return dict(_cpu_convolution_options()) if convolutions else {}


@functools.cache
def _cpu_convolution_options() -> tuple[tuple[str, Any], ...]:
    options = (("xla_cpu_experimental_ynn_fusion_type", ""),)
    if jax.default_backend() != "cpu":
        return ()
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # this XLA does not know the option
        return ()
    return options


def join_hosts() -> None:
    """Makes this process one of several that work together, before it has made any array.

    Each host of a TPU pod, each task of a SLURM, Open MPI or Kubernetes job calls it; how many they
    are, and which this is, their environment tells. In SLURM and Open MPI jobs on GPUs JAX gives
    each process one of them, unless JAX_LOCAL_DEVICE_IDS in its environment names more. Whoever
    knows it himself calls `jax.distributed.initialize(address, number, which)` instead.

    Raises:
      ValueError: if the environment tells of no such job.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            "distributed: the environment of this process tells of no TPU pod, SLURM, Open MPI or "
            f"Kubernetes job ({error}) Outside of those, in Python: "
            "jax.distributed.initialize(address, number of processes, number of this one)."
        ) from error


def num_devices() -> int:
    """Devices over all processes."""
    return jax.device_count()


def axis_index() -> jax.Array:
    """Inside a mapped function: the number of this device among all."""
    return jax.lax.axis_index(AXIS)


def sum_devices(tree: Any) -> Any:
    """Inside a mapped function: the sum over all devices of all processes."""
    return jax.lax.psum(tree, AXIS)


def join_devices(x: jax.Array) -> jax.Array:
    """Inside a mapped function: lists [B, K] of all devices in a row, [B, devices * K]."""
    return jnp.moveaxis(gather_devices(x), 0, 1).reshape(len(x), -1)


def max_devices(x: jax.Array) -> jax.Array:
    """Inside a mapped function: the elementwise maximum over all devices; it has no gradient."""
    return jax.lax.pmax(jax.lax.stop_gradient(x), AXIS)


def gather_devices(x: jax.Array) -> jax.Array:
    """Inside a mapped function: every device's x, along a new leading axis."""
    return jax.lax.all_gather(x, AXIS)


def is_writer() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def teller(progress: bool = True) -> Callable[[str], None]:
    """What says on stderr how far the work is, once and not once a process; or says nothing."""
    if progress and is_writer():
        return functools.partial(print, file=sys.stderr, flush=True)
    return lambda text: None


def on_writer(work: Callable[[], Any]) -> None:
    """Runs `work` in the process that writes files; if it fails there, it fails in all.

    Raises:
      Exception: in the writing process what `work` raised, in the others a RuntimeError.
    """
    error = None
    if is_writer():
        try:
            work()
        except Exception as raised:
            error = raised
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.asarray(error is not None))
        if failed and error is None:
            raise RuntimeError("the process that writes files failed; its message says why.")
    if error is not None:
        raise error


def same_everywhere(number: int) -> int:
    """The writing process's number in all processes."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def same_text_everywhere(text: str) -> str:
    """The writing process's text in all processes."""
    if jax.process_count() == 1:
        return text
    coded = np.frombuffer(text.encode(), np.uint8)
    padded = np.zeros(same_everywhere(len(coded)), np.uint8)
    padded[: len(coded)] = coded[: len(padded)]
    return bytes(multihost_utils.broadcast_one_to_all(padded)).decode()


def true_everywhere(flag: bool) -> bool:
    """Whether `flag` is true in every process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.asarray(flag))))


def wait_for_all(name: str) -> None:
    """Waits until every process has come here; `name` says where."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def replicate(tree: Any) -> Any:
    """Places one copy on every local device, for arguments with in_axes None.

    Done once and not a call: an array handed over unplaced is copied again by every call.
    """
    return jax.device_put(tree, NamedSharding(local_mesh(), WHOLE))


def stack(tree: Any) -> Any:
    """Copies of every leaf along a new leading axis, one on each local device."""
    sharding = NamedSharding(local_mesh(), SPLIT)
    devices = jax.local_devices()

    def place(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)[None]
        copies = [jax.device_put(leaf, device) for device in devices]
        shape = (len(devices), *leaf.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, copies)

    return jax.tree.map(place, tree)


def unstack(tree: Any) -> Any:
    """The first local device's copy of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0)[0], tree)


def rows_per_device(num_rows: int) -> int:
    """How many rows each device gets when `num_rows` are divided, padding included."""
    return -(-num_rows // num_devices())


def split(tree: Any) -> Any:
    """Rows [B, ...] -> this process's part of them, [local devices, rows a device, ...].

    Rows are divided in order over all devices; the last row is repeated as padding, which
    `collect` cuts off again.
    """

    def divide(rows: Any) -> jax.Array:
        per_device = rows_per_device(len(rows))
        local = jax.local_device_count()
        first = jax.process_index() * local * per_device
        wanted = np.minimum(np.arange(first, first + local * per_device), len(rows) - 1)
        if len(wanted) != len(rows):
            rows = rows[wanted]
        rows = jnp.reshape(rows, (local, per_device, *rows.shape[1:]))
        return jax.device_put(rows, NamedSharding(local_mesh(), SPLIT))

    return jax.tree.map(divide, tree)


def collect(tree: Any, num_rows: int, axis: int = 0) -> Any:
    """What `split` divided, whole again on every process: the first `num_rows` rows.

    Args:
      tree: arrays [local devices, ...] whose rows stand on axis `axis` after the device axis.
      num_rows: rows to keep.
      axis: the rows' axis in the result.
    """

    def join(parts: jax.Array) -> jax.Array:
        if jax.process_count() > 1:
            parts = multihost_utils.process_allgather(parts, tiled=True)
        parts = jnp.moveaxis(parts, 0, axis)
        shape = (*parts.shape[:axis], -1, *parts.shape[axis + 2 :])
        return jax.lax.slice_in_dim(jnp.reshape(parts, shape), 0, num_rows, axis=axis)

    return jax.tree.map(join, tree)


def local_mesh() -> Mesh:
    """The devices of this process."""
    return Mesh(np.array(jax.local_devices()), (AXIS,))


def row_devices() -> Mesh | None:
    """The devices of this process, or None if it has one: there is nothing to divide."""
    mesh = local_mesh()
    return mesh if mesh.size > 1 else None


def rows_a_call(num_rows: int, most: int, mesh: Mesh | AbstractMesh | None) -> int:
    """Rows of one call, as many on each device: at most `most`, and no more than there are.

    Example:
      >>> rows_a_call(100, 64, None), rows_a_call(10, 64, None)
      (64, 10)
    """
    devices = 1 if mesh is None else mesh.size
    return devices * min(most, -(-num_rows // devices))


def shard(denoiser: Any) -> Any:
    """Splits a denoiser's training set over all devices of all processes.

    Each device holds one part of the rows and compares every query with it; the partial softmaxes
    are merged by log-sum-exp. So x_hat is that of one device but for float32 rounding, and memory
    and work a device shrink as devices are added. Sampling with fewer images than fill a device is
    faster with the denoiser as it was fitted, when samples are divided instead.

    A set that does not fit one device is fitted on the host: inside
    `with jax.default_device(jax.local_devices(backend="cpu")[0])`. Under several processes each
    fits the same set and makes the same calls, in the same order.

    Args:
      denoiser: one with `sharded_fields`, the names of its fields that hold a training set: an
        OptimalDenoiser, or a BottleneckDenoiser whose code or decoder is "posterior".

    Returns:
      The denoiser over all devices, called, sampled and measured as before; with one device, the
      denoiser itself.

    Raises:
      TypeError: on a denoiser that holds no training set to split.
      ValueError: on a BottleneckDenoiser that needs none.

    Example:
      >>> from jdiff.denoisers import OptimalDenoiser
      >>> denoiser = shard(OptimalDenoiser.fit(np.zeros((9, 4, 4, 1), np.uint8)))
      >>> denoiser(jnp.zeros((2, 4, 4, 1)), 1.0).shape
      (2, 4, 4, 1)
    """
    names = getattr(type(denoiser), "sharded_fields", ())
    accepted = "OptimalDenoiser, or BottleneckDenoiser with a code or decoder 'posterior'"
    if not names:
        raise TypeError(
            f"denoiser must hold a training set that can be split: {accepted}; "
            f"got {type(denoiser).__name__}."
        )
    sets = {name: getattr(denoiser, name) for name in names}
    if any(value is None for value in sets.values()):
        raise ValueError(
            f"denoiser must hold a training set that can be split: {accepted}; "
            f"this {type(denoiser).__name__} holds none."
        )
    if num_devices() == 1:
        return denoiser
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    rest = dataclasses.replace(denoiser, **dict.fromkeys(names))
    parts = {name: value.shard(mesh) for name, value in sets.items()}
    return dataclasses.replace(everywhere(rest, mesh), **parts)


def mesh_of(tree: Any) -> Mesh | AbstractMesh | None:
    """The devices that arrays of this tree are split over; None where all lie whole."""
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and not sharding.is_fully_replicated:
            return sharding.mesh
    return None


def split_rows(array: np.ndarray, num_rows: int, fill: Any, mesh: Mesh | None) -> jax.Array:
    """Rows [N, ...] divided in order over the devices of `mesh`, each placed on its own only.

    Args:
      array: on the host, the same in every process.
      num_rows: rows in all, a multiple of the devices' number; what lacks is filled.
      fill: the value of rows beyond the array.
      mesh: the devices, or None for the default one alone.
    """

    def filled(rows: np.ndarray, length: int) -> np.ndarray:
        missing = (length - len(rows), *array.shape[1:])
        return np.concatenate([rows, np.full(missing, fill, array.dtype)]) if missing[0] else rows

    if mesh is None:
        return jax.device_put(filled(array, num_rows))  # jnp.asarray holds a second copy a while
    shape = (num_rows, *array.shape[1:])

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(num_rows)
        return filled(array[start:stop], stop - start)

    return jax.make_array_from_callback(shape, NamedSharding(mesh, SPLIT), part)


def everywhere(tree: Any, mesh: Mesh | AbstractMesh | None) -> Any:
    """Places a copy on every device of `mesh`; what is being traced is left as it is.

    Where None is given there is one device, and what lies on it already is not copied. A mesh of
    several processes needs the same values in all of them.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, WHOLE)

    def place(leaf: Any) -> Any:
        if isinstance(leaf, jax.core.Tracer):
            return leaf
        if jax.process_count() == 1 or sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf  # not committed to a device: a compiled program copies it
        leaf = np.asarray(jnp.asarray(leaf))  # on the host, in jax's own types
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree)


def map_shards(
    f: Callable, mesh: Mesh | AbstractMesh | None, in_specs: Any, out_specs: Any = WHOLE
) -> Callable:
    """`f`, written for one device with collectives over `AXIS`, on the devices of `mesh`.

    Args:
      f: sees of each argument its device's part.
      mesh: the devices; None where there is one, and the program is `f` as it is.
      in_specs: a tuple, one an argument: SPLIT, SPLIT_SECOND, WHOLE, or a tree of them.
      out_specs: likewise for results; what is WHOLE must be equal on all devices.

    Raises:
      ValueError: inside a program of `map_devices`, where each device is on its own already.
    """
    if mesh is None:
        return f
    if jax.sharding.get_abstract_mesh().manual_axes:
        raise ValueError(
            "a denoiser whose training set is split over the devices was called in a program that "
            "is itself divided over them. Samplers and measures see how a denoiser lies only in "
            "its leaves: hold it in a field of a flax.struct.PyTreeNode, not in a function."
        )
    # Not checked: jax cannot tell that a gathered, then sorted list is equal everywhere.
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def run_whole(f: Callable, mesh: Mesh | AbstractMesh, *, convolutions: bool = False) -> Callable:
    """`f` of sharded denoisers and of rows that lie on every device, compiled; so lies the result.

    Several processes need no other way here: this is one program over all their devices.
    """
    options = compiler_options(convolutions)
    return jax.jit(f, out_shardings=NamedSharding(mesh, WHOLE), compiler_options=options or None)


def bring_home(tree: Any) -> Any:
    """What lies on all devices of all processes, as arrays of this process."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf.addressable_data(0))), tree)
