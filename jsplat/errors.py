"""The one error type for bad input: it names what was wrong, what was wanted and what came."""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """Something the caller handed over is not usable.

    Args:
        what: the argument, file or field at fault ("id01/transforms.json: frames[3].transform_matrix").
        wanted: what would have been accepted.
        got: what came.
    """

    def __init__(self, what: str, *, wanted: str, got: object):
        self.what, self.wanted, self.got = what, wanted, got
        super().__init__(f"{what}: wanted {wanted}, got {got}")


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
        raise Unusable(error.what, wanted=error.wanted, got=error.got) from error


class Stopped(Exception):
    """A long loop ended because the process was asked to; what it had done is saved."""
