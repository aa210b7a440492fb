"""Which mask format lies in a folder: what the JSON files say, then what else is there."""

import dataclasses

from jsplat.errors import InputError
from jsplat.exchange import cvat, indexed
from jsplat.exchange.shapes import parse
from jsplat.exchange.store import Bundle
from jsplat.files.foreign import some_of


def _form_of(data: dict) -> str | None:
    """The format of a JSON object; None: no masks."""
    if "annotations" in data and "categories" in data:
        listed = data["annotations"]
        panoptic = isinstance(listed, list) and any(isinstance(a, dict) and "segments_info" in a for a in listed)
        return "panoptic" if panoptic else "coco"
    return "labelme" if "shapes" in data else "indexed" if "names" in data and "colors" in data else None


def format_of(bundle: Bundle, where: str) -> tuple[str, Bundle]:
    """The format of the masks in a bundle, and the bundle with the JSON of that format.

    Raises:
        InputError: (`where`: the folder) no masks, or masks of two formats.
    """
    base = {name: name.rpartition("/")[2] for name in bundle.files}
    if cvat.MAP in base.values():
        return "cvat", bundle
    documents = {n: parse(data, n) for n, data in bundle.files.items() if n.lower().endswith(".json")}
    forms = {n: _form_of(data) for n, data in documents.items()}
    found = {
        form: n for n, form in forms.items() if form is not None and (form != "indexed" or base[n] == indexed.SIDECAR)
    }
    if len(found) > 1:
        got = " and ".join(f"{form} ({name})" for form, name in sorted(found.items()))
        raise InputError(where, wanted="masks of one format", got=got, hint="put the others elsewhere")
    form = next(iter(found), None)
    if form is None and any(n.lower().endswith(".png") for n in bundle.files):
        form = "indexed"
    if form is None:
        wanted = "indexed PNGs, CVAT's labelmap.txt, labelme's shapes or COCO's annotations"
        got, hint = some_of(sorted(base.values())) or "nothing", "`jsplat export-masks` writes each of them to look at"
        raise InputError(where, wanted=wanted, got=got, hint=hint)
    return form, dataclasses.replace(bundle, documents={n: data for n, data in documents.items() if forms[n] == form})
