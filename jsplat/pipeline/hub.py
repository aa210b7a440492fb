"""Files of the Hugging Face Hub, through its own package (extra `hub`), which keeps them in its cache."""

import importlib
import re
from pathlib import Path

from jsplat.errors import InputError

_PREFIX = "hub:"
_NAME = re.compile(r"hub:([^/@]+/[^/@]+)/([^@]+?)(?:@(.+))?")


def local_file(path: Path) -> Path:
    """Where a file lies on this machine: `hub:OWNER/NAME/FILE` or `hub:OWNER/NAME/FILE@REVISION` is downloaded once.

    Any other path is returned as it is.

    Raises:
        InputError: another form, huggingface_hub is not installed, or it does not get the file.
    """
    given = str(path)
    if not given.startswith(_PREFIX):
        return path
    parts = _NAME.fullmatch(given)
    if parts is None:
        raise InputError(given, wanted="hub:OWNER/NAME/FILE or hub:OWNER/NAME/FILE@REVISION", got="another form")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        hint = "`pip install 'jsplat[hub]'`, or download the file and name it here"
        wanted = "the package huggingface_hub, to download it"
        raise InputError(given, wanted=wanted, got="none installed", hint=hint) from error
    try:
        return Path(hub.hf_hub_download(repo_id=parts[1], filename=parts[2], revision=parts[3]))
    except (OSError, ValueError) as error:  # what all errors of that package are
        got = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
        hint = "check the names and the network; `hf auth login` opens private repositories"
        raise InputError(given, wanted="a file that the hub hands out", got=got, hint=hint) from error
