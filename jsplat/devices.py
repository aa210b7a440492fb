"""Which devices work together: those of this host for identities, those of all hosts for a batch of pictures."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

IDENTITY, BATCH = "identity", "batch"


def identity_mesh() -> Mesh:
    """The devices of this host: each fits identities of its own, and none talks to another."""
    return Mesh(np.asarray(jax.local_devices()), (IDENTITY,))


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


def everywhere(mesh: Mesh) -> NamedSharding:
    """Arrays that every device of the mesh holds whole."""
    return NamedSharding(mesh, P())
