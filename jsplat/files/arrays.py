"""Named arrays on disk, through orbax."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from jsplat.errors import InputError
from jsplat.files.ownership import MADE_AGAIN
from jsplat.runtime.devices import replicated

_WANTED = "arrays that jsplat wrote, through orbax"


def _checkpointer() -> ocp.Checkpointer:
    """Orbax for this process alone: it waits for no other and writes all of its arrays itself."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process {here}"
    )
    own = ocp.type_handlers.ArrayHandler(primary_host=here, replica_id=None, use_replica_parallel=False)
    kinds = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler()), (jax.Array, own)
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=kinds, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _writable(array: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """The array as orbax writes it from any process."""
    value = np.asarray(array)
    if jax.process_count() == 1:
        return value
    # Of several processes orbax lets only the first write numpy arrays, and none write an array of its own device. It
    # takes this process's copy of an array that all processes hold, and asks nobody whether they do.
    devices = {device.process_index: device for device in reversed(jax.devices())}
    devices[jax.process_index()] = jax.local_devices()[0]
    copy = jax.device_put(value, devices[jax.process_index()])
    held = replicated(Mesh(np.asarray([*devices.values()]), ("process",)))
    return jax.make_array_from_single_device_arrays(value.shape, held, [copy])


def write_arrays(path: Path, arrays: Mapping[str, jax.Array | np.ndarray]) -> None:
    """Writes named arrays into a new folder and waits until they are there.

    Of several processes any may call it, alone.

    Args:
        arrays: whole in this process.
    """
    with _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave({n: _writable(x) for n, x in arrays.items()}))


def read_arrays(path: Path, like: Mapping[str, jax.ShapeDtypeStruct] | None = None) -> dict[str, jax.Array]:
    """Reads what `write_arrays` wrote, here or on another machine; any process may call it, alone.

    Args:
        like: the names, shapes and types that must be there; None takes what there is.

    Raises:
        InputError: something else lies there.
    """
    try:
        with _checkpointer() as checkpointer:
            stored = checkpointer.metadata(path.absolute()).item_metadata
            stored = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in (stored or {}).items()}
            found = {name: tuple(value.shape) for name, value in stored.items()}
            wanted = found if like is None else {name: value.shape for name, value in like.items()}
            if not found:
                raise InputError(str(path), wanted=_WANTED, got="none", hint=MADE_AGAIN)
            if found != wanted:
                name = next(n for n in sorted(found.keys() | wanted.keys()) if found.get(n) != wanted.get(n))
                wish = f"shape {wanted[name]}" if name in wanted else "no array of that name"
                got = f"shape {found[name]}" if name in found else "none"
                raise InputError(f"{path}: {name}", wanted=wish, got=got)
            # Asked for as numpy arrays: those of JAX would come back pinned to devices that this process may not have,
            # and every jitted function would be compiled a second time for them.
            item = {name: np.empty(value.shape, value.dtype) for name, value in (like or stored).items()}
            kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray, dtype=value.dtype) for name, value in item.items()}
            restored = checkpointer.restore(path.absolute(), args=ocp.args.PyTreeRestore(item, restore_args=kinds))
            return {name: jnp.array(np.array(value)) for name, value in restored.items()}
    except InputError:
        raise
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise InputError(str(path), wanted=_WANTED, got=error, hint=MADE_AGAIN) from error
