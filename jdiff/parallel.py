"""The only file that knows of several devices or hosts.

A program is written once for one device, with collectives over the axis name `AXIS`; `map_devices`
runs it on all of them. What every device needs whole (a denoiser, the data set) is placed once by
`replicate`, state that a program updates lives stacked, one copy a device (`stack`), and rows
(samples, queries) are divided by `split`, the last ones padding, and brought back by `collect`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


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


def num_devices() -> int:
    """Devices over all processes."""
    return jax.device_count()


def axis_index() -> jax.Array:
    """Inside a mapped function: the number of this device among all."""
    return jax.lax.axis_index(AXIS)


def sum_devices(tree: Any) -> Any:
    """Inside a mapped function: the sum over all devices of all processes."""
    return jax.lax.psum(tree, AXIS)


def is_writer() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


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


def wait_for_all(name: str) -> None:
    """Waits until every process has come here; `name` says where."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def replicate(tree: Any) -> Any:
    """Places one copy on every local device, for arguments with in_axes None.

    Done once and not a call: an array handed over unplaced is copied again by every call.
    """
    return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec()))


def stack(tree: Any) -> Any:
    """Copies of every leaf along a new leading axis, one on each local device."""
    sharding = NamedSharding(_local_mesh(), PartitionSpec(AXIS))
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
        return jax.device_put(rows, NamedSharding(_local_mesh(), PartitionSpec(AXIS)))

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


def _local_mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
