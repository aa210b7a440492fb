"""The names of weights: ours against those of the public PyTorch state dicts.

Two families of names are in circulation for the one network: zllrunning/face-parsing.PyTorch (facexlib's are the same)
and yakhyo/face-parsing. Ours are zllrunning's but for the last word (`jsplat.parser.bisenet`).
"""

import dataclasses
import re

import numpy as np

from jsplat.errors import InputError
from jsplat.parser.bisenet import BLOCKS, Architecture
from jsplat.parser.model import variable_shapes
from jsplat.parser.weights.stored import Stored

# The stem's kernel, by which a family and a prefix are recognised.
FAMILIES = {"zllrunning": "cp.resnet.conv1.weight", "yakhyo": "fpn.backbone.conv1.weight"}
_KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# zllrunning's module path -> yakhyo's; the first rule that matches is the one.
_YAKHYO = [
    (r"cp\.resnet\.(.+)", r"fpn.backbone.\1"),
    (r"cp\.(arm\d+)\.conv\.conv", r"fpn.\1.conv_block.conv"),
    (r"cp\.(arm\d+)\.conv\.bn", r"fpn.\1.conv_block.norm"),
    (r"cp\.(arm\d+)\.conv_atten", r"fpn.\1.attention.0"),
    (r"cp\.(arm\d+)\.bn_atten", r"fpn.\1.attention.1"),
    (r"cp\.(\w+)\.conv", r"fpn.\1.conv"),
    (r"cp\.(\w+)\.bn", r"fpn.\1.norm"),
    (r"ffm\.convblk\.conv", r"ffm.conv_block.conv"),
    (r"ffm\.convblk\.bn", r"ffm.conv_block.norm"),
    (r"(ffm\.conv\d)", r"\1"),
    (r"(conv_out\d*)\.conv\.conv", r"\1.conv_block.conv"),
    (r"(conv_out\d*)\.conv\.bn", r"\1.conv_block.norm"),
    (r"(conv_out\d*)\.conv_out", r"\1.conv"),
]
# The two heads that only training reads; networks are often handed on without them.
AUXILIARY = frozenset({"conv_out16", "conv_out32"})
COUNTER = "a training step counter: batch norms with a fixed momentum never read it"
DEAD = "yakhyo's backbone keeps ImageNet's classifier, which its network never calls"


def torch_key(name: str, family: str) -> str:
    """The state dict's key of one of our variables ("ffm.conv1.kernel" -> "ffm.conv1.weight")."""
    module, kind = name.rsplit(".", 1)
    if family == "yakhyo":
        pattern, replacement = next(rule for rule in _YAKHYO if re.fullmatch(rule[0], module))
        module = re.sub(pattern, replacement, module)
    return f"{module}.{_KINDS[kind]}"


def torch_keys(architecture: Architecture, classes: int, family: str) -> dict[str, str]:
    """State dict key -> our name, of all that the network computes with."""
    return {torch_key(name, family): name for name in variable_shapes(architecture, classes)}


def torch_layout(value: np.ndarray) -> np.ndarray:
    """Our kernel HWIO as torch's OIHW; vectors stay."""
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1)) if value.ndim == 4 else value


def our_layout(value: np.ndarray) -> np.ndarray:
    """The inverse of `torch_layout`."""
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value


def norm_of(conv: str) -> str:
    """The batch norm behind a convolution, both by our module path ("x.conv1" -> "x.bn1")."""
    head, last = conv.rsplit(".", 1)
    return f"{head}.1" if last == "0" else f"{head}.{last.replace('conv', 'bn')}"


def norm_parts(norm: str) -> list[str]:
    """The variables of a batch norm."""
    return [f"{norm}.{kind}" for kind in ("scale", "bias", "mean", "var")]


def names_and_prefix(keys: set[str]) -> list[tuple[str, str]]:
    """(family, prefix) of every network among the keys; the prefix ends in a dot or is empty."""
    found = []
    for family, anchor in FAMILIES.items():
        found += [(family, key.removesuffix(anchor)) for key in sorted(keys) if f".{key}".endswith(f".{anchor}")]
    return found


def architecture_of(entries: dict[str, Stored], family: str, where: str) -> tuple[Architecture, int]:
    """The network that a state dict without prefix belongs to, and its number of classes.

    Raises:
        InputError: another ResNet than 18 and 34, or widths that no factor explains.
    """
    backbone = FAMILIES[family].removesuffix("conv1.weight")
    blocks = tuple(
        len({m.group(1) for key in entries if (m := re.match(rf"{re.escape(backbone)}layer{i}\.(\d+)\.", key))})
        for i in range(1, 5)
    )
    depth = next((d for d, b in BLOCKS.items() if b == blocks), None)
    if depth is None:
        raise InputError(f"{where}: blocks of {backbone}layer1 to 4", wanted=f"one of {[*BLOCKS.values()]}", got=blocks)

    def outputs(key: str) -> int:
        if key not in entries or len(entries[key].shape) != 4:
            raise InputError(f"{where}: {key}", wanted="a convolution's kernel (out, in, h, w)", got="none")
        return entries[key].shape[0]

    # Every width was rounded to a multiple of 8: factors that explain all of them lie between these bounds.
    widths = {64: "conv1", 128: "layer2.0.conv1", 256: "layer3.0.conv1", 512: "layer4.0.conv1"}
    found = {reference: outputs(f"{backbone}{conv}.weight") for reference, conv in widths.items()}
    low = max(0 if c <= 8 else (c - 4) / r for r, c in found.items())
    high = min((c + 4) / r for r, c in found.items())
    classes = outputs(torch_key("conv_out.conv_out.kernel", family))
    if low <= 1 <= high:
        return Architecture(depth, 1.0), classes
    if not 0 <= low < high or high > 4:
        raise InputError(
            f"{where}: channels", wanted="64, 128, 256, 512 times one factor up to 4", got=[*found.values()]
        )
    return Architecture(depth, (low + high) / 2), classes


@dataclasses.dataclass(frozen=True)
class Matched:
    """What became of a state dict's entries.

    Attributes:
        used: key -> our variable.
        explained: key -> why it is not needed.
        folded: batch norms of ours that the file multiplied into their convolutions -> key of the bias that is left.
        fresh: variables of auxiliary heads that the file leaves out whole; only training needs them.
    """

    used: dict[str, str]
    explained: dict[str, str]
    folded: dict[str, str]
    fresh: tuple[str, ...]


def match(entries: dict[str, Stored], architecture: Architecture, classes: int, family: str, where: str) -> Matched:
    """Every entry used or explained, every variable found but heads that are missing whole, every shape as it must be.

    Raises:
        InputError: naming the keys that are missing, unknown or of another shape.
    """
    shapes = variable_shapes(architecture, classes)
    wanted = torch_keys(architecture, classes, family)
    used = {key: name for key, name in wanted.items() if key in entries}
    folded = _folded(entries, shapes, family)
    replaced = {part for norm in folded for part in norm_parts(norm)}
    there = {name.split(".")[0] for name in [*used.values(), *folded]}
    fresh = tuple(name for name in wanted.values() if name.split(".")[0] in AUXILIARY - there)
    replaced |= set(fresh)
    missing = [key for key, name in wanted.items() if key not in entries and name not in replaced]
    norms = {torch_key(name, family).rsplit(".", 1)[0] for name in shapes if name.endswith(".mean")}
    explained, unknown = {}, []
    for key in entries.keys() - used.keys() - set(folded.values()):
        module, _, kind = key.rpartition(".")
        if kind == "num_batches_tracked" and module in norms:
            explained[key] = COUNTER
        elif family == "yakhyo" and key in ("fpn.backbone.fc.weight", "fpn.backbone.fc.bias"):
            explained[key] = DEAD
        else:
            unknown.append(key)
    for title, keys, rule in (("missing", missing, "every weight"), ("unknown", unknown, "only the weights")):
        if keys:
            shown = ", ".join(key[:80] for key in sorted(keys)[:6])
            shown += f" and {len(keys) - 6} more" if len(keys) > 6 else ""
            wish = f"{rule} of a ResNet-{architecture.depth} BiSeNet, as {family} names them"
            raise InputError(where, wanted=wish, got=f"{len(keys)} {title}: {shown}")
    for key, name in [*used.items(), *((bias, f"{norm}.bias") for norm, bias in folded.items())]:
        shape = shapes[name] if len(shapes[name]) != 4 else tuple(shapes[name][i] for i in (3, 2, 0, 1))
        if entries[key].shape != shape:
            raise InputError(f"{where}: {key}", wanted=f"shape {shape}", got=entries[key].shape)
    return Matched(used, explained, folded, fresh)


def _folded(entries: dict[str, Stored], shapes: dict[str, tuple[int, ...]], family: str) -> dict[str, str]:
    """Batch norm -> bias of its convolution, where entries have that bias and nothing of the batch norm."""
    found = {}
    for name in shapes:
        conv, kind = name.rsplit(".", 1)
        bias, parts = torch_key(name, family).removesuffix("weight") + "bias", norm_parts(norm_of(conv))
        if kind == "kernel" and bias in entries and all(part in shapes for part in parts):
            if any(torch_key(part, family) in entries for part in parts):
                continue
            found[norm_of(conv)] = bias
    return found
