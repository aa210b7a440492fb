"""A stage: reads folders, writes one folder with run.json, is skipped when that is already done."""

import contextlib
import hashlib
import json
import re
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jsplat.config import to_json
from jsplat.errors import InputError, Unusable, remedy
from jsplat.files.atomic import ADVICE, replaced, write_json
from jsplat.files.lock import held
from jsplat.files.ownership import ABOUT, MADE_AGAIN, check_untouched, made_by, put, remove, seal
from jsplat.pipeline.out import claim_whole
from jsplat.pipeline.reuse import take_over
from jsplat.runtime.devices import broadcast_bytes, is_first_host, wait_for_hosts
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.programs import compile_totals
from jsplat.runtime.progress import log, narrate
from jsplat.runtime.provenance import provenance
from jsplat.runtime.view_blocks import VIEWS

SHOWN = 3  # identities that failed, in a message
SEEN_AFTER = 120  # seconds that a network file system may take


def fingerprint(*parts: object) -> str:
    """A short digest of settings (any config dataclass or JSON value); files are told apart by their `Digests`."""
    digest = hashlib.sha256()
    for part in parts:
        plain = to_json(part) if hasattr(part, "__dataclass_fields__") else part
        digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def finished(folder: Path, wanted: str) -> float | None:
    """Seconds that a finished stage took, or None when it has to run."""
    about = _about(folder)
    return float(about["seconds"]) if about.get("fingerprint") == wanted else None


def _about(folder: Path) -> dict:
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


@contextlib.contextmanager
def stage(
    folder: Path, wanted: str, config: object, seed: int, *, command: str, each: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """The folder of a stage to fill; what a killed attempt left of the same stage is still in it.

    It appears under its name, with run.json and without `checkpoint_folder(...)`, when the block ends without an error
    on all hosts. Until then it is called `.<name>.<wanted>`, and an older folder of its name stays as it is.

    Args:
        command: whose folder it is, as run.json will say.
        each: the fingerprint of each identity; results that older folders of this stage hold are in it too (see
            `take_over`).

    Raises:
        InputError: before the block and after it, when the folder is another command's or holds a file that we did not
            write or that somebody changed; another process fills it (named); files cannot be read or written.
    """
    start, name = time.monotonic(), folder.name
    about = {"command": command, "config": to_json(config) if hasattr(config, "__dataclass_fields__") else config}
    about |= {"fingerprint": wanted, **provenance(seed)}  # now: nothing of it may fail after the work
    folder = folder.resolve()
    work = folder.with_name(f".{folder.name}.{wanted}")
    with exclusive(folder.with_name(f".{folder.name}.lock"), f"one command at a time for {folder.name}"), _logged(name):
        if is_first_host():
            claim_whole(folder, command)
            check_untouched(folder)
            _begin(work, command, wanted)
        try:
            if is_first_host() and each is not None:
                about |= _taken_over(work, each, [folder, *(p for p in _attempts(folder, command) if p != work)])
            wait_for_hosts(f"{work} is there")
            yield work
            wait_for_hosts(f"{work} is filled")
            if is_first_host():
                for rest in (checkpoint_folder(work), *work.rglob(".*.tmp*")):
                    shutil.rmtree(rest) if rest.is_dir() else rest.unlink(missing_ok=True)
                write_json(work / ABOUT, about | {"seconds": time.monotonic() - start})
                seal(work, folder)
                check_untouched(folder)
                put(work, folder)
                for older in _attempts(folder, command):
                    remove(older)
        except OSError as error:
            what_to_do = "what is finished is kept, and the same command goes on from there"
            hint = f"{found}; {what_to_do}" if (found := remedy(error)) else what_to_do
            raise InputError(str(folder), wanted="files that can be read and written", got=error, hint=hint) from error
        wait_for_hosts(f"{work} has its name")
        wait_until_visible(folder, lambda: finished(folder, wanted) is not None)


@contextlib.contextmanager
def exclusive(lock: Path, wanted: str) -> Iterator[None]:
    """Holds a lock for all processes of this run: the first takes it, and if it may not, none goes on.

    Args:
        wanted: as of `jsplat.files.lock.held`.

    Raises:
        InputError: in every process, naming who holds it.
    """
    with contextlib.ExitStack() as stack:
        refused = {}
        if is_first_host():
            try:
                stack.enter_context(held(lock, wanted))
            except InputError as error:
                refused = error.parts
        refused = json.loads(broadcast_bytes(json.dumps(refused).encode()))
        if refused:
            raise InputError(**refused)
        yield


def _begin(work: Path, command: str, wanted: str) -> None:
    """Makes the folder to fill, which says from the start whose it is, or takes up what a killed attempt left."""
    if work.exists() and any(work.iterdir()) and made_by(work) != command:
        wanted = f"what `jsplat {command}` left unfinished"
        raise InputError(str(work), wanted=wanted, got="other files", hint=f"{ADVICE} OUT")
    if _about(work).get("fingerprint") not in (None, wanted):
        remove(work)  # the older folder, which a kill kept from being removed
    work.mkdir(parents=True, exist_ok=True)
    if not (work / ABOUT).exists():
        write_json(work / ABOUT, {"command": command})


def _attempts(folder: Path, command: str) -> list[Path]:
    """The unfinished folders of a stage."""
    found = sorted(folder.parent.glob(f".{folder.name}.*"))
    return [path for path in found if stage_name(path) == folder.name and made_by(path) == command]


def _taken_over(work: Path, each: Mapping[str, str], older: list[Path]) -> dict:
    """Takes over what needs not be made again; returns what run.json says of it."""
    taken = take_over(work, each, older)
    about = {"taken_over": taken, "made": len(each) - taken}
    log("stage takes over", stage=stage_name(work), **about)
    if taken:
        narrate(f"{stage_name(work)}: {taken} of {len(each)} identities are taken over")
    return about


def cleared(path: Path) -> Path:
    """A name within the folder of a stage, without what a killed attempt left under it."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def wait_until_visible(path: Path, is_there: Callable[[], bool]) -> None:
    """Waits until a shared file system shows this host what another one has written."""
    for _ in range(SEEN_AFTER):
        if is_there():
            return
        time.sleep(1)
    got, hint = f"not seen within {SEEN_AFTER} s", "name an OUT on a file system that every host mounts"
    raise InputError(str(path), wanted="a folder that all hosts share", got=got, hint=hint)


def stage_name(work: Path) -> str:
    """Which stage a folder is being filled for."""
    return re.sub(r"^\.(.+)\.[0-9a-f]{16}$", r"\1", work.name)


def checkpoint_folder(folder: Path) -> Path:
    """Where a stage keeps what only an interrupted one needs."""
    return folder / ".unfinished"


@contextlib.contextmanager
def _logged(name: str) -> Iterator[None]:
    start = time.monotonic()
    if is_first_host():
        narrate(f"== {name}")
    log("stage begins", stage=name)
    try:
        yield
    except BaseException as error:
        log("stage failed", stage=name, error=f"{type(error).__name__}: {error}")
        raise
    log("stage ends", stage=name, seconds=round(time.monotonic() - start, 3), compiling=compile_totals())


def record_failure(folder: Path, identity: str, why: str) -> None:
    """Says in the folder of a stage, in the log and on stderr, that an identity failed there; the others go on."""
    write_json(folder / "failed" / f"{identity}.json", {"identity": identity, "why": why})
    log("identity failed", identity=identity, stage=stage_name(folder), why=why)
    print(f"{identity} is left out: {why}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def leaving_out(folder: Path, identity: str) -> Iterator[None]:
    """What is `Unusable` of an identity leaves it out, and only it; an earlier attempt's word is forgotten.

    Any other error is one of the program or of its settings, and ends the stage; bad input names the identity too.
    """
    (folder / "failed" / f"{identity}.json").unlink(missing_ok=True)
    try:
        yield
    except Unusable as error:
        record_failure(folder, identity, str(error))
    except InputError as error:
        raise error.at(f"{identity}: {error.what}") from error


def done_or_failed(folder: Path, identity: str) -> bool:
    """Whether an identity has its file in the folder of a stage, or failed there."""
    return (folder / f"{identity}.npz").is_file() or (folder / "failed" / f"{identity}.json").is_file()


def failures(folder: Path) -> dict[str, str]:
    """Which identities failed in a stage, and why."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "failed").glob("*.json"))]
    return {about["identity"]: about["why"] for about in found}


def whys(folder: Path) -> str:
    """Why identities failed in a stage, for people; `SHOWN` of them."""
    found = [f"{name}: {why}" for name, why in failures(folder).items()]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more])


def save_arrays(path: Path, **arrays: np.ndarray | KeptViews) -> None:
    """Writes named arrays, compressed, whole or not at all; what is kept in blocks is written in blocks."""
    with replaced(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, of in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as part:
                if not isinstance(of, KeptViews):
                    np.lib.format.write_array(part, np.asanyarray(of), allow_pickle=False)
                    continue
                about = {"descr": np.lib.format.dtype_to_descr(of.dtype), "fortran_order": False, "shape": of.shape}
                np.lib.format.write_array_header_1_0(part, about)
                for start in range(0, len(of), VIEWS):
                    part.write(np.ascontiguousarray(of[start : start + VIEWS]).tobytes())


def load_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote: the arrays called `names`, or all; InputError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names or data.files}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(str(path), wanted="arrays that jsplat wrote", got=error, hint=MADE_AGAIN) from error
