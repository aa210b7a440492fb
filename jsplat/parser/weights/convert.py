"""Somebody's weights as our parser, and our parser as somebody's weights."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jsplat.errors import InputError
from jsplat.files.atomic import new_file, write_json
from jsplat.labelsets.labelset import CELEBAMASK_HQ, LabelSet
from jsplat.labelsets.tables import LABEL_SETS
from jsplat.parser.bisenet import Architecture
from jsplat.parser.checkpoint import describe, read_description, save_parser
from jsplat.parser.model import Parser, new_parser
from jsplat.parser.weights.files import read_weights
from jsplat.parser.weights.keys import (
    FAMILIES,
    Matched,
    architecture_of,
    match,
    names_and_prefix,
    norm_parts,
    our_layout,
    torch_keys,
    torch_layout,
)
from jsplat.parser.weights.onnx_graph import onnx_model
from jsplat.parser.weights.stored import Limits, Stored, WeightFile

# Under this name our own files carry the architecture and the label set.
METADATA = "jsplat"
PREPROCESSING = (
    "colours / 255, ImageNet mean and deviation, logits read bilinearly with aligned corners: as the reference",
    "the reference squeezes a picture into 512 x 512; here its longer side becomes input_size and the rest is padded",
    "the reference resizes by PIL, antialiased; here bilinear without antialiasing, as cv2: downscaled pictures differ",
    "the reference takes the argmax at 512 and scales classes; here logits are read at the picture's own pixels",
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What became of a file's entries.

    Attributes:
        source: the file's name.
        kind: its format.
        family: whose names its weights have.
        nested: the path of the state dict inside the checkpoint, and the prefix of its keys.
        used: key -> our variable.
        folded: key of a bias -> the batch norm of ours that the file multiplied into the convolution before it.
        fresh: variables of ours that the file leaves out, of whole auxiliary heads: they begin as in a new parser.
            The main head, and so every prediction, does not depend on them; training (`start`) does, and trains them.
        explained: key -> why it is not needed. Together these are all there is: anything else is an error.
        converted: types other than float32 that weights had.
        labelset_from: where the classes' names come from.
        preprocessing: how pictures reach the network here, beside the reference's way.
    """

    source: str
    kind: str
    family: str
    nested: str
    used: dict[str, str]
    folded: dict[str, str]
    fresh: tuple[str, ...]
    explained: dict[str, str]
    converted: tuple[str, ...]
    labelset_from: str
    preprocessing: tuple[str, ...] = PREPROCESSING

    def summary(self) -> str:
        """One paragraph for people."""
        reasons: dict[str, int] = {}
        for reason in self.explained.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        lines = [f"{self.source}: {self.kind}, names of {self.family}{self.nested and f', under {self.nested}'}"]
        used, missing = len(self.used) + len(self.folded), "no others" if self.fresh else "none"
        lines += [f"  {used} entries used, {len(self.explained)} not needed, {missing} missing, none unknown"]
        lines += [f"  {len(self.folded)} batch norms come multiplied into their convolutions"] if self.folded else []
        heads = " and ".join(sorted({name.split(".")[0] for name in self.fresh}))
        lines += [f"  without {heads}, which only training needs: begun anew"] if heads else []
        lines += [f"  {count} x {reason}" for reason, count in sorted(reasons.items())]
        return "\n".join([*lines, f"  classes: {self.labelset_from}"])


@dataclasses.dataclass(frozen=True)
class _Found:
    family: str
    path: str
    prefix: str
    entries: dict[str, Stored]
    others: dict[str, str]


def _networks(tree: object, where: str) -> list[_Found]:
    """Every BiSeNet in a checkpoint's nested dicts, each dict looked at once."""
    found, seen, queue = [], set(), [("", tree)]
    while queue:
        path, node = queue.pop(0)
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        tensors = {str(key): value for key, value in node.items() if isinstance(value, Stored)}
        for family, prefix in names_and_prefix(set(tensors)):
            entries = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            strange = [key[:80] for key in tensors if not key.startswith(prefix)]
            if strange:
                wanted = f"keys that begin with {prefix[:80]!r}"
                raise InputError(f"{where}: {path or 'state dict'}", wanted=wanted, got=strange[:6])
            found.append(_Found(family, path, prefix, entries, {}))
        if path.count("/") < 4:
            queue += [(f"{path}/{key}".strip("/")[:200], value) for key, value in node.items()]
    return found


def _network(file: WeightFile, inside: str | None, where: str) -> _Found:
    found = [f for f in _networks(file.tree, where) if inside in (None, f.path)]
    if not found:
        if inside is not None and (known := _networks(file.tree, where)):
            places = ", ".join(f.path or "none needed" for f in known)
            raise InputError(f"{where}: --inside", wanted=f"a network's place ({places})"[:300], got=inside)
        keys = ", ".join(map(str, list(file.tree)[:6])) if isinstance(file.tree, dict) else type(file.tree).__name__
        wanted = f"a BiSeNet's weights ({' or '.join(FAMILIES.values())})"
        raise InputError(where, wanted=wanted, got=keys[:300], hint="other networks cannot be brought in; train one")
    if len(found) > 1:
        places = [f.path or f.prefix for f in found]
        hint = f"`--inside {places[0]}` (in Python `inside=`) takes the first"
        raise InputError(where, wanted="one network", got=", ".join(places), hint=hint)
    return found[0]


def _values(found: _Found, matched: Matched, where: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    values, converted = {}, set()

    def read(key: str) -> np.ndarray:
        stored = found.entries[key]
        if stored.dtype != np.float32:
            converted.add(stored.dtype.name)
        if stored.dtype.kind not in "fV" and stored.dtype.name != "bfloat16":
            raise InputError(f"{where}: {found.prefix}{key}", wanted="floating point numbers", got=stored.dtype.name)
        with np.errstate(over="ignore"):
            value = stored.read().astype(np.float32)
        if not np.isfinite(value).all():
            wanted, got = "finite numbers", f"{np.count_nonzero(~np.isfinite(value))} that are not"
            raise InputError(f"{where}: {found.prefix}{key}", wanted=wanted, got=got)
        return value

    for key, name in matched.used.items():
        values[name] = our_layout(read(key))
        if name.endswith(".var") and values[name].min() < 0:
            raise InputError(f"{where}: {found.prefix}{key}", wanted="variances", got=values[name].min())
    for norm, key in matched.folded.items():
        bias = read(key)
        # 1 - 1e-5, to which batch norms add their epsilon of 1e-5: divided by exactly 1.
        identity = (np.ones_like(bias), bias, np.zeros_like(bias), np.full_like(bias, 1 - 1e-5))
        values |= dict(zip(norm_parts(norm), identity))
    return values, tuple(sorted(converted))


def _meaning(
    file: WeightFile, given: LabelSet | None, architecture: Architecture, classes: int, where: str
) -> tuple[Architecture, LabelSet, str]:
    """The architecture and label set: from our own metadata, as given, or as the public checkpoints have them."""
    own = None
    if METADATA in file.metadata:
        try:
            own = read_description(json.loads(file.metadata[METADATA]), f"{where}: metadata")
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{where}: metadata", wanted="JSON", got=error) from error
    if own is not None and given is not None and own[1] != given:
        what, wanted, got = f"{where}: labelset", ", ".join(given.names), ", ".join(own[1].names)
        raise InputError(what, wanted=wanted, got=got, hint="leave --labels out: the file says what its classes are")
    if own is not None:
        architecture, labelset, source = *own, "written in the file"
    elif given is not None:
        labelset, source = given, "as given"
    elif classes == len(CELEBAMASK_HQ):
        labelset, source = CELEBAMASK_HQ, "taken to be zllrunning's 19, the order of the public files"
    else:
        fits = [name for name, known in LABEL_SETS.items() if len(known) == classes]
        hint = f"`--labels` names a label set; of those with {classes} classes there is {' or '.join(fits) or 'none'}"
        what, wanted = f"{where}: label set", "to be told what the classes are"
        raise InputError(what, wanted=wanted, got=f"{classes} classes", hint=hint)
    if len(labelset) != classes:
        wanted = f"{len(labelset)}, as the label set has"
        raise InputError(f"{where}: classes", wanted=wanted, got=classes, hint="`--labels` names another label set")
    return architecture, labelset, source


def read_parser(
    path: Path,
    labelset: LabelSet | None = None,
    *,
    input_size: int | None = None,
    inside: str | None = None,
    limits: Limits = Limits(),
) -> tuple[Parser, Conversion]:
    """A BiSeNet out of a torch checkpoint, safetensors or ONNX.

    A file may leave out the auxiliary heads, as ONNX files do (ours too): they then begin as those of a new parser.

    Args:
        path: the file; names as zllrunning, facexlib or yakhyo give them, under any prefix ("module.", "model.net.")
            and nested in dicts ("state_dict", "model").
        labelset: what the classes mean; inferred for the 19 classes of the public checkpoints.
        input_size: pixels of the longer side that the network is to see; None: as the file says, else the 512 that
            public checkpoints were trained for.
        inside: path of the dict to take ("ema/state_dict") where a checkpoint holds several networks.
        limits: what a file may cost.

    Raises:
        InputError: the file is damaged or hostile; weights are missing, unknown, of wrong shape or not finite; or the
            classes need a label set.
    """
    where = str(path)
    file = read_weights(path, limits)
    found = _network(file, inside, where)
    architecture, classes = architecture_of(found.entries, found.family, where)
    architecture, labelset, source = _meaning(file, labelset, architecture, classes, where)
    if input_size is not None:
        architecture = dataclasses.replace(architecture, input_size=input_size)
    matched = match(found.entries, architecture, classes, found.family, where)
    values, converted = _values(found, matched, where)
    if matched.fresh:
        new = new_parser(architecture, labelset, seed=0).variables
        values |= {name: np.asarray(new[name]) for name in matched.fresh}
    parser = Parser({name: jnp.asarray(value) for name, value in values.items()}, architecture, labelset)
    nested = "".join(f"{part} " for part in (found.path, found.prefix) if part).strip()
    return parser, Conversion(
        source=path.name,
        kind=file.kind,
        family=found.family,
        nested=nested,
        used=matched.used,
        folded={bias: norm for norm, bias in matched.folded.items()},
        fresh=matched.fresh,
        explained={**matched.explained, **file.explained},
        converted=converted,
        labelset_from=source,
    )


def convert(
    path: Path, out: Path, labelset: LabelSet | None = None, *, input_size: int | None = None, inside: str | None = None
) -> Conversion:
    """Writes a weight file as a parser folder, and `conversion.json` into it; arguments as `read_parser`."""
    parser, conversion = read_parser(path, labelset, input_size=input_size, inside=inside)
    save_parser(out, parser)
    write_json(out / "conversion.json", dataclasses.asdict(conversion))
    return conversion


def to_torch(parser: Parser, family: str = "zllrunning") -> dict[str, np.ndarray]:
    """A state dict by PyTorch names, loadable with strict=True; weights bit for bit those of the parser.

    Step counters are 0, and yakhyo's unused classifier is zeros.

    Args:
        parser: any.
        family: whose names, "zllrunning" (facexlib too) or "yakhyo".

    Raises:
        InputError: an unknown family.
    """
    if family not in FAMILIES:
        raise InputError("family", wanted=f"one of {', '.join(FAMILIES)}", got=family)
    out = {}
    for key, name in torch_keys(parser.architecture, len(parser.labelset), family).items():
        out[key] = np.array(torch_layout(np.asarray(parser.variables[name], np.float32)))
        if name.endswith(".var"):
            out[key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    if family == "yakhyo":
        inputs = parser.architecture.channels(512)
        out["fpn.backbone.fc.weight"] = np.zeros((1000, inputs), np.float32)
        out["fpn.backbone.fc.bias"] = np.zeros(1000, np.float32)
    return out


def export(parser: Parser, out: Path, family: str = "zllrunning") -> None:
    """Writes a parser for others, by the suffix of `out`.

    Args:
        parser: any.
        out: a new file; `.onnx`: the graph of `jsplat.parser.weights.onnx_graph`; `.safetensors`: weights by PyTorch
            names.
        family: whose names the weights get.

    Raises:
        InputError: another suffix, a file that is there, an unknown family, or a package that is not installed.
    """
    if out.suffix == ".onnx":
        data = onnx_model(parser, family)
    elif out.suffix == ".safetensors":
        from safetensors.numpy import save

        metadata = {"format": "pt", METADATA: json.dumps(describe(parser))}
        data = save(to_torch(parser, family), metadata)
    else:
        raise InputError("export: out", wanted="a name that ends in .onnx or .safetensors", got=out.name)
    with new_file(out) as temporary:
        temporary.write_bytes(data)
