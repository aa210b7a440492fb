"""Who of a stage does which identity, and who is left when one fails."""

import concurrent.futures
import queue
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed, list_captures
from jsplat.errors import InputError, Stopped
from jsplat.pipeline.work_folder import (
    done_or_failed,
    failures,
    leaving_out,
    save_arrays,
    whys,
)
from jsplat.runtime.devices import shard_of_host, wait_for_hosts, workers
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP
from jsplat.runtime.view_blocks import Devices, on_first


def read_captures(path: Path, size: int | None) -> list[Capture]:
    """All captures below a folder, one size, names unique."""
    return [one.read() for one in list_captures(path, size)]


def each_identity(
    what: str,
    listed: list[Listed],
    folder: Path,
    make: Callable[[Listed, Devices], Mapping[str, np.ndarray | KeptViews]],
) -> None:
    """Fills the folder of a stage with one file for each identity; what is there already is not made again.

    Bad input leaves its identity out, until its fingerprint changes. Returns when all hosts have done their shares.

    Args:
        what: how people call it.
        make: the arrays of one identity, made on these devices, which share its views (see `workers`).

    Raises:
        InputError: nobody is left.
        Stopped: the process was asked to end; who is done is kept.
    """
    own = [at for at in shard_of_host(listed) if not done_or_failed(folder, at.identity)]
    device_groups, idle = workers(len(own)), queue.SimpleQueue()
    for worker in device_groups:
        idle.put(worker)

    def one(at: Listed) -> None:
        if STOP.is_set():
            raise Stopped(f"stopped in {what}, at {at.identity}")
        devices = idle.get()
        try:
            with leaving_out(folder, at.identity), on_first(devices):
                save_arrays(folder / f"{at.identity}.npz", **make(at, devices))
        finally:
            idle.put(devices)

    progress = Progress(what, len(own))
    with concurrent.futures.ThreadPoolExecutor(len(device_groups)) as pool:
        for _ in pool.map(one, own):
            progress.advance()
    wait_for_all_hosts(what, listed, folder)


def wait_for_all_hosts(what: str, listed: list[Listed], folder: Path) -> None:
    """Waits for the other hosts' shares of a stage; InputError when every identity failed in it."""
    wait_for_hosts(f"{folder}: all shares")
    if not succeeded(listed, folder):
        raise InputError(what, wanted="somebody for whom it can be done", got=f"nobody ({whys(folder)})")


def succeeded(listed: list[Listed], *folders: Path) -> list[Listed]:
    """The captures that did not fail in any of these stages."""
    failed = {name for folder in folders for name in failures(folder)}
    return [one for one in listed if one.identity not in failed]
