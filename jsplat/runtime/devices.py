"""Which devices work together: those of this host for identities, those of all hosts for a batch of pictures.

A host is a process: JAX knows how many there are once `jax.distributed.initialize` was called.
"""

import itertools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jsplat.runtime.view_blocks import Devices

T = TypeVar("T")

IDENTITY, BATCH = "identity", "batch"
_tellings = itertools.count()  # all hosts are told the same in the same order
PATIENCE = 7 * 24 * 3600  # seconds; a host that dies ends the others long before, through JAX's own heartbeats


def cores() -> int:
    """Processor cores that this process may use: a scheduler can give it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Bytes of this host; without end where it does not say."""
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 2**63


def identity_mesh(identities: int) -> Mesh:
    """Devices of this host, no more than identities: each fits its own, and none talks to another."""
    return Mesh(np.asarray(jax.local_devices()[:identities]), (IDENTITY,))


def workers(identities: int) -> list[Devices]:
    """Which devices of this host work on each of the identities that are worked on at once.

    Fewer identities than devices: several devices each. The cores of a processor take one identity each and share one
    device (no devices in particular): each of several would compile its own programs.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return [()] * max(min(identities, cores()), 1)
    groups = max(min(identities, len(devices)), 1)
    return [devices[i::groups] for i in range(groups)]


def batch_mesh() -> Mesh:
    """Where a parser is trained, data-parallel: all accelerators of all hosts.

    The cores of a processor count as one device here: XLA's convolutions use them all already.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu":
        devices = [next(d for d in devices if d.process_index == i) for i in range(jax.process_count())]
    return Mesh(np.asarray(devices), (BATCH,))


def split(mesh: Mesh) -> NamedSharding:
    """Arrays whose leading axis is divided among the mesh's devices."""
    return NamedSharding(mesh, P(mesh.axis_names[0]))


def replicated(mesh: Mesh) -> NamedSharding:
    """Arrays that every device of the mesh holds whole."""
    return NamedSharding(mesh, P())


def replicate(tree: T, mesh: Mesh) -> T:
    """The arrays of a tree on every device of the mesh (`replicated`), in memory of their own.

    Every process fills its own devices; that all of them hold the same values is the caller's promise. `device_put`
    would prove it by sending all arrays of all processes to all.
    """

    def put(x: jax.Array | np.ndarray) -> jax.Array:
        copies = [jax.device_put(x, device, may_alias=False) for device in mesh.local_devices]
        return jax.make_array_from_single_device_arrays(x.shape, replicated(mesh), copies)

    return jax.tree.map(put, tree)


def shard_of_host(items: Sequence[T]) -> list[T]:
    """What this host works on: every so many of them, so that neighbours in size are spread."""
    return list(items[jax.process_index() :: jax.process_count()])


def is_first_host() -> bool:
    """Whether this host does what is done once."""
    return jax.process_index() == 0


def broadcast_bytes(data: bytes) -> bytes:
    """What the first host has, on every host; all of them call it."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    # Of the others only the length counts.
    mine = np.frombuffer(data[:length].ljust(length), np.uint8)
    return multihost_utils.broadcast_one_to_all(mine).tobytes()


def broadcast_from_first(make: Callable[[], Any]) -> Any:
    """What `make`, called on the first host alone, returns (JSON-ready), on every host; all of them call it."""
    if jax.process_count() == 1:
        return make()
    found = json.dumps(make()).encode() if is_first_host() else b""
    # It may take the first one long, and JAX's own exchange of arrays is not patient.
    wait_for_hosts(f"told by the first, {next(_tellings)}")
    return json.loads(broadcast_bytes(found))


def wait_for_hosts(what: str) -> None:
    """Returns when every host has come to `what`, a name that is used once."""
    if jax.process_count() > 1:
        ocp.multihost.sync_global_processes(what, timeout=PATIENCE)
