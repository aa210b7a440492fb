"""Random people: every number that shapes and colours a procedural head, drawn from one table of ranges."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jsplat.errors import InputError

# What is drawn for everybody, uniform in [low, high]; metres in the head frame unless the name says otherwise.
RANGES: Mapping[str, tuple[float, float]] = {
    "scale": (0.94, 1.07),  # factor on the whole head
    "skull_x": (0.071, 0.080), "skull_y": (0.080, 0.090), "skull_z": (0.090, 0.102),
    "face_x": (0.053, 0.064), "face_y": (0.070, 0.079), "face_z": (0.066, 0.074),
    "jaw_x": (0.036, 0.056), "jaw_y": (-0.082, -0.072),
    "chin_x": (0.015, 0.030), "chin_y": (-0.106, -0.096), "chin_z": (0.060, 0.072),
    "cheek_x": (0.041, 0.048), "cheek_y": (-0.030, -0.018), "cheek_r": (0.020, 0.028),
    "ridge": (0.008, 0.016),  # depth of the brow ridge
    "eye_x": (0.030, 0.035), "eye_y": (-0.002, 0.006), "eye_w": (0.0150, 0.0185), "eye_h": (0.0058, 0.0090),
    "eye_tilt": (-0.12, 0.18), "gaze_x": (-0.003, 0.003), "gaze_y": (-0.0015, 0.0010), "iris_r": (0.0053, 0.0064),
    "brow_y": (0.0195, 0.0270), "brow_arch": (0.001, 0.007), "brow_tilt": (-0.12, 0.16), "brow_h": (0.0024, 0.0048),
    "brow_w": (0.016, 0.020),
    "nose_y": (-0.041, -0.031), "nose_z": (0.098, 0.112), "nose_r": (0.0090, 0.0130), "nose_w": (0.0090, 0.0160),
    "bridge_z": (0.076, 0.082), "bridge_r": (0.0055, 0.0085),
    "mouth_y": (-0.071, -0.063), "mouth_w": (0.020, 0.028), "mouth_curve": (-5.0, 9.0),  # curve: 1 / metre
    "upper_h": (0.0042, 0.0085), "lower_h": (0.0058, 0.0105), "bow": (0.0, 0.5),  # bow: depth of the cupid's bow, share
    "ear_y": (-0.020, -0.006), "ear_z": (-0.020, -0.004), "ear_h": (0.026, 0.036), "ear_w": (0.015, 0.021),
    "ear_flare": (0.15, 0.75), "ear_lean": (-0.05, 0.35),  # radians
    "neck_r": (0.044, 0.060), "neck_z": (-0.040, -0.022),
    "body_x": (0.165, 0.225), "body_y": (-0.248, -0.226), "collar": (0.056, 0.082), "collar_v": (0.0, 0.060),
    "collar_h": (-0.006, 0.006),
    "hairline": (0.102, 0.122), "hair_part": (-0.012, 0.012), "temple": (0.095, 0.125), "nape": (-0.072, -0.035),
    "mottle": (0.03, 0.08), "freckles": (-0.3, 0.24), "stubble": (-0.5, 0.5), "blush": (0.0, 0.25),
    "strands": (0.14, 0.36), "stripes": (-1.0, 1.0), "stripe_k": (35.0, 110.0), "stripe_lean": (-1.5, 1.5),
    "ambient": (0.50, 0.68), "diffuse": (0.40, 0.60), "shine": (0.04, 0.16),
}  # fmt: skip

# What only some people have; the values here mean "absent", at a place where nothing can see it.
ABSENT: Mapping[str, float] = {
    "hair_t": -0.04, "hair_amp": 0.0, "hair_k": 25.0, "hair_top": 1.0, "ear_cover": 0.0,
    "drape_x": 0.02, "drape_z": 0.02, "drape_end": 0.0, "drape_front": 0.0,
    "tail_y": 0.03, "tail_z": 0.0, "tail_ry": 0.01, "tail_r": 0.01,
    "mouth_open": 0.0004, "hat_off": 1.0, "hat_y": 0.05, "hat_h": 0.09, "hat_t": 0.016, "brim": 0.1,
    "glasses_off": 1.0, "lens": 0.0, "glasses_r": 0.022,
    "earring_off": 1.0, "earring_r": 0.0, "earring_w": 0.004,
    "necklace_off": 1.0,
}  # fmt: skip

HAIR_STYLES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "bald": {},
    "stubble": {"hair_t": (0.0015, 0.0035)},
    "cap": {"hair_t": (0.008, 0.014), "hair_amp": (0.0, 0.0012), "hair_k": (30.0, 50.0)},
    "fringe": {
        "hair_t": (0.012, 0.018), "hairline": (0.070, 0.086), "hair_part": (-0.040, 0.040),
        "hair_amp": (0.0005, 0.0015), "hair_k": (28.0, 42.0),
    },
    "curly": {"hair_t": (0.018, 0.034), "hair_amp": (0.0018, 0.0030), "hair_k": (20.0, 30.0), "nape": (-0.09, -0.06)},
    "bun": {"hair_t": (0.004, 0.007), "tail_y": (0.04, 0.11), "tail_z": (-0.125, -0.105), "tail_ry": (0.025, 0.038),
            "tail_r": (0.025, 0.035)},
    "ponytail": {"hair_t": (0.005, 0.008), "tail_y": (-0.05, -0.02), "tail_z": (-0.130, -0.118),
                 "tail_ry": (0.08, 0.10), "tail_r": (0.020, 0.028)},
    "bob": {
        "hair_t": (0.012, 0.019), "drape_x": (0.094, 0.102), "drape_z": (0.082, 0.092), "drape_end": (-0.11, -0.075),
        "drape_front": (0.020, 0.045), "ear_cover": (1.0, 1.0), "ear_flare": (0.05, 0.20),
        "temple": (0.070, 0.084), "hairline": (0.084, 0.114),
        "hair_part": (-0.030, 0.030), "nape": (-0.10, -0.09),
    },
    "long": {
        "hair_t": (0.010, 0.018), "drape_x": (0.094, 0.106), "drape_z": (0.078, 0.090), "drape_end": (-0.24, -0.16),
        "drape_front": (0.0, 0.035), "ear_cover": (1.0, 1.0), "ear_flare": (0.05, 0.20),
        "temple": (0.072, 0.088), "hairline": (0.096, 0.118),
        "hair_part": (-0.020, 0.020), "nape": (-0.10, -0.09),
    },
}  # fmt: skip
_STYLE_SHARES = {"bald": 0.05, "stubble": 0.14, "cap": 0.22, "fringe": 0.14, "curly": 0.11, "bun": 0.06,
                 "ponytail": 0.06, "bob": 0.09, "long": 0.13}  # fmt: skip

_HAT = {"hat_off": (0.0, 0.0), "hat_y": (0.045, 0.062), "hat_h": (0.085, 0.120), "brim": (0.080, 0.138)}
_GLASSES = {"glasses_off": (0.0, 0.0), "glasses_r": (0.019, 0.023)}
_EARRING = {"earring_off": (0.0, 0.0), "earring_r": (0.0, 0.013), "earring_w": (0.0022, 0.0045)}

# sRGB anchors; a person's colour is a mixture of two neighbours, jittered.
_SKINS = ((246, 214, 192), (228, 184, 152), (198, 146, 110), (150, 100, 72), (104, 66, 48), (72, 46, 36))
_HAIRS = ((24, 20, 20), (52, 36, 28), (96, 62, 38), (150, 100, 54), (206, 168, 104), (168, 74, 34), (150, 146, 142))
_IRISES = ((88, 56, 34), (66, 92, 124), (92, 112, 74), (54, 36, 26), (110, 128, 140))
_METALS = ((214, 178, 88), (214, 216, 222), (236, 232, 224), (70, 70, 78))

Person = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class PeopleConfig:
    """How often people wear what not everybody wears, and how often a mouth is open.

    Attributes:
        hat, glasses, earrings, necklace, open_mouth: shares of the people, in [0, 1].
    """

    hat: float = 0.10
    glasses: float = 0.08
    earrings: float = 0.20
    necklace: float = 0.14
    open_mouth: float = 0.45

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise InputError(f"PeopleConfig.{field.name}", wanted="a share in [0, 1]", got=value)


def make_head(identity: int, seed: int = 0, config: PeopleConfig | None = None) -> Person:
    """A random person, the same for the same arguments.

    Args:
        identity: which person, >= 0.
        seed: which population, >= 0.
        config: how often accessories occur.

    Returns:
        Named float32 numbers and small arrays: lengths in metres in the head frame, colours in [0, 1].
    """
    if identity < 0 or seed < 0:
        raise InputError("make_head: identity, seed", wanted="integers >= 0", got=(identity, seed))
    config = PeopleConfig() if config is None else config
    rng = np.random.default_rng([seed, identity])
    style = rng.choice(list(_STYLE_SHARES), p=list(_STYLE_SHARES.values()))
    wears = {name: rng.random() < getattr(config, name) for name in ("hat", "glasses", "earrings", "necklace")}
    ranges = {**RANGES, **{name: (value, value) for name, value in ABSENT.items()}, **HAIR_STYLES[style]}
    if rng.random() < config.open_mouth:
        ranges["mouth_open"] = (0.002, 0.010)
    for name, worn in (("hat", _HAT), ("glasses", _GLASSES), ("earrings", _EARRING)):
        ranges |= worn if wears[name] else {}
    if wears["necklace"]:
        ranges["necklace_off"] = (0.0, 0.0)
    if wears["glasses"] and rng.random() < 0.3:
        ranges["lens"] = (1.0, 1.0)
    person = {name: rng.uniform(low, high) for name, (low, high) in ranges.items()}
    if wears["hat"]:  # hair thicker than the hat would poke through it
        person["hair_top"] = person["hat_y"]
        person["hair_t"] = min(person["hair_t"], 0.015)
        person["hat_t"] = max(person["hair_t"], 0.006) + 0.006
    person |= _colours(rng) | _textures(rng)
    return {name: jnp.asarray(value, jnp.float32) for name, value in person.items()}


def _colours(rng: np.random.Generator) -> dict[str, np.ndarray]:
    skin = _between(rng, _SKINS)
    hair = _between(rng, _HAIRS, neighbours=False)
    cloth = rng.uniform(0.08, 0.92, (2, 3))
    return {
        "skin": skin,
        "lips": np.clip(skin * rng.uniform([0.80, 0.48, 0.50], [1.0, 0.66, 0.70]), 0, 1),
        "hair": hair,
        "brow": np.clip(hair * rng.uniform(0.55, 0.95), 0, 1) * 0.8 + skin * 0.1,
        "iris": _between(rng, _IRISES, neighbours=False),
        "cloth": cloth[0],
        "cloth2": cloth[0] * 0.35 + cloth[1] * 0.65,
        "hat": rng.uniform(0.08, 0.75, 3),
        "metal": _between(rng, _METALS, neighbours=False),
        "frame": rng.uniform(0.05, 0.4, 3),
        "background": np.round(rng.uniform(20, 240, 3)) / 255.0,
    }


def _between(rng: np.random.Generator, anchors, neighbours: bool = True) -> np.ndarray:
    table = np.asarray(anchors) / 255.0
    at = rng.uniform(0, len(table) - 1)
    low, fraction = int(at), (at - int(at) if neighbours else 0.0)
    mixed = table[low] * (1 - fraction) + table[min(low + 1, len(table) - 1)] * fraction
    return np.clip(mixed * rng.uniform(0.92, 1.08, 3), 0.0, 1.0)


def _textures(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Wave vectors (unit length) and phases (turns) of the noise, and the light's direction in the head frame."""
    waves = rng.normal(size=(3, 5, 3))
    light = np.asarray([rng.uniform(-0.9, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.5, 1.0)])
    return {
        "waves": waves / np.linalg.norm(waves, axis=-1, keepdims=True),
        "phases": rng.uniform(0, 1, (3, 5)),
        "light": light / np.linalg.norm(light),
    }
