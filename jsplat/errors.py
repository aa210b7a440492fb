"""The one error type for bad input: it names what was wrong, what was wanted and what came."""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """Something the caller handed over is not usable.

    Args:
        what: the argument, file or field at fault ("id01/transforms.json: frames[3].transform_matrix").
        wanted: what would have been accepted.
        got: what came.
        hint: what to do about it, where there is something to do: an option, a command, a setting.
    """

    def __init__(self, what: str, *, wanted: str, got: object, hint: str = ""):
        self.what, self.wanted, self.got, self.hint = what, wanted, got, hint
        super().__init__(f"{what}: wanted {wanted}, got {got}{f'; {hint}' if hint else ''}")

    @property
    def parts(self) -> dict[str, str]:
        """Its arguments, JSON-ready: `InputError(**parts)` says the same in another process."""
        return {"what": self.what, "wanted": self.wanted, "got": str(self.got), "hint": self.hint}

    def at(self, what: str) -> "InputError":
        """The same, said of another argument, file or field."""
        return type(self)(**{**self.parts, "what": what})


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
