"""Where cameras stand around a head, and whole captures of procedural people."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np

from jsplat.captures.capture import Capture
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.raster.camera import Camera, orbit
from jsplat.runtime.devices import cores
from jsplat.synthetic.person import PeopleConfig, make_head
from jsplat.synthetic.trace import REACH, render_head

# (pitch, share of the views, largest |yaw|) in degrees: the rows of a FaceScape-like dome, face level first.
_ROWS = ((0, 15, 110), (20, 11, 100), (-20, 11, 100), (40, 9, 90), (-40, 6, 75), (50, 3, 40), (10, 1, 0))


@dataclasses.dataclass(frozen=True)
class HeadsConfig:
    """How procedural people are photographed.

    Attributes:
        size: pixels per side.
        samples: colour samples per pixel side.
        distance: metres from the camera to the middle of the head.
        extent: metres that the picture spans at that distance.
        frontal_yaw, frontal_pitch: half ranges in degrees of the near-frontal rig.
        frontal_roll: standard deviation in degrees of the near-frontal camera's roll.
        frontal_zoom: half range of the near-frontal rig's relative change of distance.
        people: how often accessories occur.
    """

    size: int = 128
    samples: int = 2
    distance: float = 1.25
    extent: float = 0.34
    frontal_yaw: float = 20.0
    frontal_pitch: float = 15.0
    frontal_roll: float = 3.0
    frontal_zoom: float = 0.08
    people: PeopleConfig = dataclasses.field(default_factory=PeopleConfig)

    def __post_init__(self):
        if self.size < 8 or self.samples < 1:
            raise InputError("HeadsConfig: size, samples", wanted="at least 8, 1", got=(self.size, self.samples))
        nearest = self.distance * (1.0 - self.frontal_zoom)
        if self.extent <= 0 or self.frontal_zoom < 0 or nearest <= REACH:
            got = (self.distance, self.extent, self.frontal_zoom)
            wanted = f"> 0, >= 0, and every camera more than {REACH} m away"
            raise InputError("HeadsConfig: distance, extent, frontal_zoom", wanted=wanted, got=got)

    @property
    def intrinsics(self) -> np.ndarray:
        """`3 3`, pixels."""
        focal = self.size * self.distance / self.extent
        return np.asarray([[focal, 0, self.size / 2], [0, focal, self.size / 2], [0, 0, 1.0]])


def frontal_rig(views: int, config: HeadsConfig, rng: np.random.Generator) -> Camera:
    """Random near-frontal cameras (`views` of them), as in a face parser's training set."""
    yaw = rng.uniform(-config.frontal_yaw, config.frontal_yaw, views)
    pitch = rng.uniform(-config.frontal_pitch, config.frontal_pitch, views)
    roll = rng.normal(0.0, config.frontal_roll, views)
    distance = config.distance * (1.0 + rng.uniform(-config.frontal_zoom, config.frontal_zoom, views))
    return orbit(yaw, pitch, roll, distance, config.intrinsics, (config.size, config.size))


def capture_rig(views: int, config: HeadsConfig) -> Camera:
    """A dome of cameras in rows of equal pitch (|yaw| <= 110, -40 <= pitch <= 50), spread evenly over each row.

    The views are shared out over the rows by largest remainders; 56 give the full FaceScape-like rig.
    """
    total = sum(fraction for _, fraction, _ in _ROWS)
    exact = np.asarray([fraction * views / total for _, fraction, _ in _ROWS])
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: views - counts.sum()]] += 1
    yaw = [np.linspace(-most, most, n) if n > 1 else np.zeros(n) for n, (_, _, most) in zip(counts, _ROWS)]
    pitch = np.repeat([float(row[0]) for row in _ROWS], counts)
    distance = np.full(views, config.distance)
    return orbit(np.concatenate(yaw), pitch, np.zeros(views), distance, config.intrinsics, (config.size, config.size))


def render_captures(
    identities: Sequence[int],
    views: int,
    config: HeadsConfig,
    seed: int = 0,
    rig: str = "capture",
) -> list[Capture]:
    """Renders some people, one capture each, with exact labels.

    Args:
        identities: which people of the population `seed`, any integers >= 0; the same number is the same person.
        views: photographs per person, at least 2.
        config: how they are photographed.
        seed: the population.
        rig: "frontal" (random, per person) or "capture" (a dome, the same for all).
    """
    if views < 2:
        raise InputError("render_captures: views", wanted="at least 2", got=views)
    if rig not in ("frontal", "capture"):
        raise InputError("render_captures: rig", wanted="'frontal' or 'capture'", got=repr(rig))

    def one(identity: int) -> Capture:
        person = make_head(identity, seed, config.people)
        rng = np.random.default_rng([seed, identity, 1])
        cameras = frontal_rig(views, config, rng) if rig == "frontal" else capture_rig(views, config)
        seen = render_head(person, cameras, config.samples)
        red, green, blue = (int(c) for c in np.round(np.asarray(person["background"]) * 255.0))
        return Capture(
            f"head{identity:04d}", seen.images, seen.labels, cameras, CELEBAMASK_HQ, np.eye(4), (red, green, blue)
        )

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, identities))
