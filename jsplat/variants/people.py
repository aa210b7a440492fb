"""People made from people: another shape, other colours, what others wear; labels stay on their Gaussians."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

from jsplat.captures.capture import Capture
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import rounded_capacity
from jsplat.raster.pytree import pytree
from jsplat.raster.scene import Attributes, Scene
from jsplat.runtime.precision import einsum
from jsplat.runtime.view_blocks import over_views
from jsplat.training_sets.auxiliary import AuxiliarySet
from jsplat.variants.colors import groups_of, lit, recolored
from jsplat.variants.config import VariantsConfig
from jsplat.variants.shape import moved, random_warp, warped
from jsplat.views import ViewsConfig, cameras_around, look

CARRIED = ("hair", "hat", "eye_g", "ear_r", "neck_l")
FACE = (
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "nose",
    "mouth",
    "u_lip",
    "l_lip",
)  # heads are laid on each other by these
_HIDDEN = -30.0  # logit of an opacity that shows nothing


@dataclasses.dataclass(frozen=True)
class Person:
    """One fitted and labelled head.

    Attributes:
        identity: a name.
        cameras: of the capture, world units.
        head_from_world: into the head frame of `jsplat.raster.camera`.
        behind: the colour that was behind it, in [0, 1].
        scene: as fitted, world units.
        probabilities: of the classes, per Gaussian.
        seen: blend weight per Gaussian over the views it was fitted to.
    """

    identity: str
    cameras: Camera
    head_from_world: Float[np.ndarray, "4 4"]
    behind: Float[np.ndarray, " 3"]
    scene: Scene
    probabilities: Float[np.ndarray, "n k"]
    seen: Float[np.ndarray, " n"]

    @staticmethod
    def of(
        capture: Capture, scene: Scene, probabilities: Float[np.ndarray, "n k"], seen: Float[np.ndarray, " n"]
    ) -> "Person":
        """Of a capture nothing but its cameras is kept."""
        about = capture.identity, capture.cameras, capture.head_from_world, capture.behind
        return Person(*about, scene, np.asarray(probabilities, np.float32), np.asarray(seen, np.float32))


@pytree
class _Parts:
    """What the program of a variant takes of one person."""

    scene: Scene
    probabilities: Float[Array, "n k"]
    weights: Float[Array, " n"]
    known: Bool[Array, " n"]


class Variants:
    """Pictures with labels of people who never were, in pieces that their number alone decides.

    Args:
        people: captured ones.
        config: how far they may differ, and how many there are at a time.
        views: from where they are photographed, and from which blend weight on a Gaussian counts as seen.
        alpha_gate: a pixel with less alpha is background.
        seed: decides every variant.
        made_from: what tells these people from others, for `fingerprint`.

    Attributes:
        fraction, pieces, every, fingerprint: as `jsplat.parser.fresh.Source` wants them.
    """

    def __init__(
        self,
        people: Sequence[Person],
        labelset: LabelSet,
        config: VariantsConfig,
        views: ViewsConfig,
        alpha_gate: float,
        seed: int,
        made_from: str = "",
    ):
        self.labelset, self.config = labelset, config
        self.fraction, self.pieces, self.every = config.fraction, max(config.pool // config.views, 1), config.every
        self.fingerprint = repr((made_from, labelset.names, config, views, alpha_gate, seed))
        self._people, self._views, self._gate, self._seed = people, views, alpha_gate, seed
        self._parts = [_parts_of(person, views.seen_weight) for person in people]
        self._faces = [_face(person, parts, labelset) for person, parts in zip(people, self._parts)]
        self._groups, self._capacity = tuple(groups_of(labelset).tolist()), 0

    def piece(self, number: int) -> AuxiliarySet:
        """`config.views` pictures of one variant."""
        rng = np.random.default_rng([self._seed, number])
        which, donor = (*rng.permutation(len(self._people)).tolist(), 0)[:2]
        person = self._people[which]
        count, spans = self.config.views, (self._views.yaw, self._views.pitch, self._views.roll, self._views.distance)
        yaw, pitch, roll, far = (rng.uniform(*span, count) for span in spans)
        cameras = cameras_around(person.cameras, person.head_from_world, yaw, pitch, roll, far)
        behind = rng.uniform(0, 1, 3) if rng.uniform() < 0.7 else person.behind
        worn = self._carried(rng, which, donor)
        program = functools.partial(_photographed, views=cameras, groups=self._groups)
        arguments = (
            jax.random.key(int(rng.integers(2**31))),
            self._parts[which],
            self._parts[donor],
            self._between(which, donor),
            jnp.asarray(worn),
            jnp.asarray(behind, jnp.float32),
        )
        while True:
            capacity = self._capacity or rounded_capacity(4 * 2 * len(person.seen))
            images, labels, needed = program(*arguments, capacity=capacity, config=self.config, gate=self._gate)
            if (most := int(needed.max())) <= capacity:
                break
            self._capacity = rounded_capacity(round(1.3 * most))
        return AuxiliarySet(
            images=np.asarray(images),
            labels=np.asarray(labels),
            weights=np.ones(count, np.float32),
            identity=(f"variant of {person.identity}",) * count,
            yaw=yaw.astype(np.float32),
            pitch=pitch.astype(np.float32),
            source=("render",) * count,
            labelset=self.labelset,
        )

    def _carried(self, rng: np.random.Generator, which: int, donor: int) -> Bool[np.ndarray, " k"]:
        """Which classes of the donor are put on."""
        worn = np.zeros(len(self.labelset), bool)
        for name in CARRIED:
            if which != donor and name in self.labelset.names and rng.uniform() < self.config.carry:
                worn[self.labelset.id(name)] = True
        return worn

    def _between(self, which: int, donor: int) -> Float[Array, "3 4"]:
        """From the donor's world to the other's, face on face: a similarity that keeps the head frame's axes."""
        (to, size), (since, old_size) = self._faces[which], self._faces[donor]
        scale = size / old_size
        to_head = self._people[donor].head_from_world
        matrix = np.eye(4)
        matrix[:3, :3] *= scale
        matrix[:3, 3] = to - scale * since
        return jnp.asarray(np.linalg.inv(self._people[which].head_from_world) @ matrix @ to_head, jnp.float32)[:3]


def _parts_of(person: Person, seen_weight: float) -> _Parts:
    seen = jnp.asarray(person.seen, jnp.float32)
    probabilities = jnp.asarray(person.probabilities, jnp.float32)
    return _Parts(person.scene, probabilities, jnp.minimum(seen, 50.0), seen >= seen_weight)


def _face(person: Person, parts: _Parts, labelset: LabelSet) -> tuple[np.ndarray, float]:
    """Centre and size of the face in the head frame; of the whole head where none of its parts is known."""
    known = [labelset.id(name) for name in FACE if name in labelset.names]
    weights = np.asarray(parts.weights) * np.asarray(parts.probabilities)[:, known].sum(-1) if known else None
    if weights is None or weights.sum() < 1:
        weights = np.asarray(parts.weights)
    weights = weights / weights.sum()
    frame = person.head_from_world
    points = np.asarray(person.scene.gaussians.means) @ frame[:3, :3].T + frame[:3, 3]
    centre = weights @ points
    return centre, float(np.sqrt(weights @ ((points - centre) ** 2).sum(-1)))


@functools.partial(jax.jit, static_argnames=("groups", "capacity", "config", "gate"))
def _photographed(
    key: Key[Array, ""],
    person: _Parts,
    donor: _Parts,
    between: Float[Array, "3 4"],
    worn: Bool[Array, " k"],
    behind: Float[Array, " 3"],
    views: Camera,
    *,
    groups: tuple[int, ...],
    capacity: int,
    config: VariantsConfig,
    gate: float,
) -> tuple[UInt8[Array, "v h w 3"], UInt8[Array, "v h w"], Array]:
    """Pictures and labels of a variant, and the tile hits that its views need."""
    warp_key, color_key, light_key = jax.random.split(key, 3)
    own, other = person.scene.gaussians, donor.scene.gaussians
    centre = einsum("n,ni->i", person.weights, own.means) / person.weights.sum()
    size = einsum("n,n->", person.weights, jnp.linalg.norm(own.means - centre, axis=-1)) / person.weights.sum()
    warp = random_warp(warp_key, own.means, person.weights, centre, size, config.shape)
    means, jacobians = warped(warp, own.means)
    laid = einsum("ij,nj->ni", between[:, :3], other.means) + between[:, 3]
    laid, bent = warped(warp, laid)
    bent = einsum("nij,jk->nik", bent, between[:, :3])
    chosen = donor.known & (donor.probabilities @ worn.astype(jnp.float32) > 0.5)
    both = moved(
        jax.tree.map(lambda *x: jnp.concatenate(x), own, other),
        jnp.concatenate([means, laid]),
        jnp.concatenate([jacobians, bent]),
    )
    shown = jnp.concatenate([jnp.ones(len(means), bool), chosen])
    both = dataclasses.replace(both, logit_opacities=jnp.where(shown, both.logit_opacities, _HIDDEN))
    probabilities = jnp.concatenate([person.probabilities, donor.probabilities])
    weights = jnp.concatenate([person.weights, donor.weights]) * shown
    sh = jnp.concatenate([person.scene.attributes.sh, donor.scene.attributes.sh])
    sh = recolored(color_key, sh, probabilities, weights, np.asarray(groups), config.color)
    away = both.means - centre
    away = away / jnp.maximum(jnp.linalg.norm(away, axis=-1, keepdims=True), 1e-6)
    sh = lit(light_key, sh, away, config.color)
    scene = Scene(both, Attributes(sh, jnp.zeros((len(sh), 1))))
    known = jnp.concatenate([person.known, donor.known])
    features = jnp.concatenate([probabilities, known[:, None].astype(jnp.float32)], -1)

    def one(camera: Camera):
        image, render = look(scene, features, camera, behind, capacity=capacity)
        labels = jnp.argmax(render.channels[..., 3:-1], -1).astype(jnp.uint8)
        labels = jnp.where(render.channels[..., -1] < 0.5 * render.alpha, jnp.uint8(IGNORE), labels)
        return image, jnp.where(render.alpha < gate, jnp.uint8(0), labels), render.needed

    return over_views(one, views)
