"""Folders and zip archives as {name: bytes}: written whole or not at all, read with nothing taken on trust."""

import dataclasses
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jsplat.errors import InputError
from jsplat.files.atomic import new_file, new_folder, write_bytes
from jsplat.files.foreign import with_slashes
from jsplat.files.ownership import ABOUT, RECORDS, command_in

MOST_FILES = 100_000
MOST_BYTES = 2_000_000_000
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_UNREADABLE = (*_DAMAGE, EOFError, OSError, RuntimeError, ValueError)
# What masks are made of; photographs and whatever else lies beside them are known by name only.
_COPY = "put a copy of the file in its place"  # of a link
_EXPORT = "export or download it again"
_READ = (".png", ".json", ".txt")


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What lies in a folder or an archive.

    Attributes:
        names: every file, by relative name.
        files: contents of those that masks can be made of.
        documents: JSON objects that are masks of the one format found there, by file.
    """

    names: list[str]
    files: dict[str, bytes]
    documents: dict[str, dict] = dataclasses.field(default_factory=dict)

    def named_like(self, wanted: Iterable[str]) -> set[str]:
        """Files that end in one of these relative names without ending, in whatever folders above."""
        stems = set(wanted)

        def tails(name: str) -> Iterator[str]:
            parts = stem(name).split("/")
            return ("/".join(parts[i:]) for i in range(len(parts)))

        return {name for name in self.names if any(tail in stems for tail in tails(name))}


def stem(name: str) -> str:
    """A relative name without the ending of its file: "ada/000.png" -> "ada/000"."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.rsplit(".", 1)[0] if "." in file.lstrip(".") else file)


def check_name(name: str, where: str) -> None:
    """InputError unless a name is a plain relative path: no drive, no parent, nothing that a system reads otherwise."""
    parts = name.split("/")
    odd = any(ord(c) < 32 or c in '\\:*?"<>|' for c in name)
    if odd or len(name) > 400 or any(part in ("", ".", "..") or part != part.strip() for part in parts):
        raise InputError(where, wanted="a plain relative path with forward slashes", got=repr(name[:100]))


def write_files(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes a new folder, or a new archive where the name ends in .zip; the same files give the same archive."""
    if out.suffix == ".zip":
        with new_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return
    with new_folder(out) as folder:
        fill_folder(folder, files)


def fill_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder that is there."""
    for name, data in files.items():
        write_bytes(folder / name, data)


def read_files(path: Path) -> Bundle:
    """The files of a folder, of a zip archive, or one single file; of hidden ones the names alone.

    Raises:
        InputError: nothing there, a name that leaves the folder, a link, an archive that is damaged, encrypted, or
            unpacks to more than `MOST_BYTES` or `MOST_FILES`.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise InputError(str(path), wanted="a file, a folder or an archive", got="nothing there")
    if not zipfile.is_zipfile(path):
        if path.suffix.lower() == ".zip":
            raise InputError(path.name, wanted="a zip archive", got="a damaged or unfinished one", hint=_EXPORT)
        _check_amount(path.stat().st_size, 1, path.name)
        return Bundle([path.name], {path.name: path.read_bytes()})
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.name)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path.name, wanted="a readable zip archive", got=error, hint=_EXPORT) from error


def _check_amount(size: int, files: int, where: str) -> None:
    if size > MOST_BYTES or files > MOST_FILES:
        wanted = f"at most {MOST_BYTES:,} bytes in {MOST_FILES:,} files, unpacked"
        got, hint = f"{size:,} bytes in {files:,} files", "put the masks alone into it, without photographs"
        raise InputError(where, wanted=wanted, got=got, hint=hint)


def _wanted(name: str) -> bool:
    """Whether masks may be made of a file: no hidden one, none that a system left, none of another kind."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return not hidden and name.lower().endswith(_READ)


def _read_folder(path: Path) -> Bundle:
    names, found, total = [], {}, 0
    for file in sorted(path.rglob("*")):
        name = with_slashes(file.relative_to(path).as_posix())
        hidden = any(part.startswith(".") for part in name.split("/"))
        if file.is_symlink() and not hidden:
            what, hint = f"{path.name}/{name}", _COPY
            raise InputError(what, wanted="a file of the folder's own", got="a link", hint=hint)
        if not file.is_file():
            continue
        names.append(name)
        if name in found:
            raise InputError(f"{path.name}/{name}", wanted="a name that occurs once", got="twice, with / and \\")
        if _wanted(name):
            total += file.stat().st_size
            _check_amount(total, len(found) + 1, path.name)
            found[name] = file.read_bytes()
    return _without_ours(Bundle(names, found))


def _without_ours(bundle: Bundle) -> Bundle:
    """The files but for the records of a folder that we wrote."""
    base = {name: name.rpartition("/")[2] for name in bundle.names}
    if not any(base[n] == ABOUT and command_in(data) is not None for n, data in bundle.files.items()):
        return bundle
    names = [name for name in bundle.names if base[name] not in RECORDS]
    return Bundle(names, {name: data for name, data in bundle.files.items() if base[name] not in RECORDS})


def _read_archive(archive: zipfile.ZipFile, where: str) -> Bundle:
    entries = [(with_slashes(e.filename), e) for e in archive.infolist()]
    entries = [(name, e) for name, e in entries if not name.endswith("/")]
    wanted = [(name, e) for name, e in entries if _wanted(name)]
    _check_amount(sum(e.file_size for _, e in wanted), len(entries), where)
    found, total = {}, 0
    for name, entry in entries:
        check_name(name, f"{where}: entry")
        if (entry.external_attr >> 16) & 0o170000 == 0o120000:
            hint = _COPY
            raise InputError(f"{where}: {name}", wanted="a file", got="a link", hint=hint)
    for name, entry in wanted:
        if name in found:
            raise InputError(f"{where}: {name}", wanted="a name that occurs once", got="twice")
        with archive.open(entry) as file:
            # The declared size may lie: never more than is left is unpacked.
            data = file.read(MOST_BYTES - total + 1)
        total += len(data)
        _check_amount(total, len(entries), where)
        found[name] = data
    return _without_ours(Bundle([name for name, _ in entries], found))
