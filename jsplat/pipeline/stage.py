"""A stage: reads folders, writes one folder with run.json, is skipped when that is already done."""

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jsplat.config import to_json
from jsplat.errors import InputError
from jsplat.folder import new_folder, provenance, write_json
from jsplat.progress import log


def fingerprint(*parts: object) -> str:
    """A short digest of settings (any config dataclass or JSON value) and of the folders and files in `parts`.

    Raises:
        InputError: naming the folder or file that is not there.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            if not part.exists():
                raise InputError(str(part), wanted="a folder or file to read", got="nothing there")
            files = (
                sorted(p for p in part.rglob("*") if p.is_file() and p.name != "run.json") if part.is_dir() else [part]
            )
            for file in files:
                about = file.stat()
                digest.update(f"{file.relative_to(part)} {about.st_size} {about.st_mtime_ns}\n".encode())
        else:
            plain = to_json(part) if hasattr(part, "__dataclass_fields__") else part
            digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def finished(folder: Path, wanted: str) -> float | None:
    """Seconds that a finished stage took, or None when it has to run."""
    try:
        about = json.loads((folder / "run.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return float(about["seconds"]) if about.get("fingerprint") == wanted else None


@contextlib.contextmanager
def stage(folder: Path, wanted: str, config: object, seed: int) -> Iterator[Path]:
    """The folder of a stage to fill; it appears under its name with run.json when the block ends without an error."""
    start = time.monotonic()
    print(f"== {folder.name}", file=sys.stderr, flush=True)
    log("stage begins", stage=folder.name)
    with _logged(folder.name), new_folder(folder) as temporary:
        yield temporary
        about = {"config": to_json(config) if hasattr(config, "__dataclass_fields__") else config}
        about |= {"fingerprint": wanted, "seconds": time.monotonic() - start, **provenance(seed)}
        write_json(temporary / "run.json", about)


@contextlib.contextmanager
def _logged(name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    except BaseException as error:
        log("stage failed", stage=name, error=f"{type(error).__name__}: {error}")
        raise
    log("stage ends", stage=name, seconds=round(time.monotonic() - start, 3))


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for what an unfinished stage can go on from; it survives a kill and goes when the block succeeds."""
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def resumable(folder: Path, wanted: str, config: object, seed: int) -> Iterator[tuple[Path, Path]]:
    """A `stage` to fill, and the `scratch` folder beside it for what an unfinished one can go on from."""
    unfinished = folder.with_name(f".{folder.name}.{wanted}")
    with stage(folder, wanted, config, seed) as temporary, scratch(unfinished):
        yield temporary, unfinished


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays, compressed."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as data:
        return dict(data)
