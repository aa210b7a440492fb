"""The one error type for bad input: it names what was wrong, what was wanted and what came."""

import contextlib
import errno
from collections.abc import Iterator

_FULL = "make room there, or name a place on another disk"
_FORBIDDEN = "change its permissions, or name another place"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "name a place on a disk that can be written",
    errno.EMFILE: "`ulimit -n 4096` lets a process open more files",
    errno.ENAMETOOLONG: "shorten the name",
}


class InputError(ValueError):
    """Something the caller handed over is not usable.

    Args:
        what: the argument, file or field at fault ("id01/transforms.json: frames[3].transform_matrix").
        wanted: what would have been accepted.
        got: what came; an OSError is told in the system's words.
        hint: what to do about it in one plain sentence, where there is something to do that `wanted` does not say: an
            option, a command, a setting, a file. For an OSError, by default what its number calls for.
    """

    def __init__(self, what: str, *, wanted: str, got: object, hint: str = ""):
        if isinstance(got, OSError) and got.strerror:
            hint = hint or remedy(got)
            got = got.strerror if got.filename is None else f"{got.strerror}: {got.filename}"
        self.what, self.wanted, self.got, self.hint = what, wanted, got, hint
        super().__init__(f"{what}: wanted {wanted}, got {got}{f'; {hint}' if hint else ''}")

    @property
    def parts(self) -> dict[str, str]:
        """Its arguments, JSON-ready: `InputError(**parts)` says the same in another process."""
        return {"what": self.what, "wanted": self.wanted, "got": str(self.got), "hint": self.hint}

    def at(self, what: str) -> "InputError":
        """The same, said of another argument, file or field."""
        return type(self)(**{**self.parts, "what": what})


def remedy(error: OSError) -> str:
    """What to do about an error of the system; "" where it says that itself."""
    return _REMEDIES.get(error.errno or 0, "")


class Unusable(InputError):
    """What belongs to one person cannot be used: that person is left out, and the others go on."""


@contextlib.contextmanager
def of_a_person() -> Iterator[None]:
    """Bad input within the block is one person's: it becomes `Unusable`. For what is read and checked, not computed."""
    try:
        yield
    except Unusable:
        raise
    except InputError as error:
        raise Unusable(**error.parts) from error


class Stopped(Exception):
    """A long loop ended because the process was asked to; what it had done is saved."""
