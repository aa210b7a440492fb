"""Names of people, under which results are written."""

from jsplat.errors import InputError

MOST_NAME = 200  # bytes of an identity: most file systems take 255, and the longest of our files adds some 30
# What stages call their own files and folders, beside those of the identities; in small letters.
_TAKEN = {"failed", "batches", "labelset", "run", "fit", "left_out", "set", "student", "truth_student", "control"}
_TAKEN |= {"edits", "history", "scores", "report", "study", "parser", "import"}
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


def check_identity(name: str, where: str) -> None:
    """InputError unless results can be written under a name, on every system, and no stage uses it for itself."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # half of a pair, from JSON
        length = MOST_NAME + 1
    odd = any(ord(c) < 32 or c in '/\\<>:"|?*\x7f' for c in name)
    bare = name.casefold()
    complaints = {
        'a name without slashes, control characters or any of <>:"|?*': odd or name in ("", ".", ".."),
        f"a name of at most {MOST_NAME} bytes in UTF-8": length > MOST_NAME,
        "a name that begins with no dot or space and ends with neither": name != name.strip()
        or name[:1] == "."
        or name[-1:] == ".",
        "another name (Windows keeps this one to itself)": bare.split(".")[0] in _DEVICES,
        "another name (stages use this one)": bare in _TAKEN or bare.startswith("scenes-"),
    }
    wanted = next((text for text, found in complaints.items() if found), None)
    if wanted is not None:
        hint = "`identity` in transforms.json names a capture; without it the name is its folder's"
        raise InputError(where, wanted=wanted, got=repr(name)[:80], hint=hint)
