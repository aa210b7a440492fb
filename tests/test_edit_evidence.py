"""Edits as evidence: the sparse render against the rasterizer, what an edit does to other views and what it leaves."""

import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.edit import UNTOUCHED, EditConfig, edit, edit_all
from jsplat.edit.blend_matrix import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP, blend_weights
from jsplat.edit.evidence import _leading_mixture
from jsplat.edit.voices import likelihood
from jsplat.errors import InputError
from jsplat.kernels import constants
from jsplat.labels import VoterLabels, paint
from jsplat.labelsets.labelset import IGNORE
from jsplat.raster.capacity import capacity_for
from tests import spotted
from tests.close import assert_close
from tests.spotted import BACK, FRONT, SIZE, SPOT


def test_the_constants_are_the_rasterizers():
    assert (ALPHA_FLOOR, ALPHA_CEILING) == (constants.ALPHA_FLOOR, constants.ALPHA_CEILING)
    assert constants.TRANSMITTANCE_STOP == TRANSMITTANCE_STOP


def test_the_matrix_renders_what_the_rasterizer_renders():
    gaussians, cameras = spotted.scene().gaussians, spotted.capture().cameras
    features = np.random.default_rng(0).uniform(size=(900, 4)).astype(np.float32)
    render = paint(gaussians, jnp.asarray(features), cameras, capacity=capacity_for(gaussians, cameras))
    for least, tolerance, why in (
        (0.0, 1e-2, "a contribution that one side drops at the alpha floor of 1/255 and the other keeps"),
        (0.002, 3e-2, "the same, and some ten weights below 0.002 left out in a pixel"),
    ):
        weights = blend_weights(gaussians, cameras, least)
        got = np.stack([w @ features for w in weights]).reshape(render.channels.shape)
        assert_close(got, np.asarray(render.channels), tolerance, why)
        error = np.abs(got - np.asarray(render.channels)).mean()
        assert error < (1e-6 if least == 0 else 1e-2)  # float32 sums; nearly all pixels have no dropped weights


def test_one_edit_corrects_the_views_that_see_the_same_place():
    truth, head = spotted.capture().labels, spotted.head()
    assert truth is not None
    assert not (head.masks == SPOT).any()
    outcome = edit(head, FRONT, spotted.spot())
    assert np.array_equal(head.mask(FRONT) == SPOT, truth[FRONT] == SPOT)  # in its own view: exactly what was said
    for view in range(len(truth)):
        shown, true = head.masks[view] == SPOT, truth[view] == SPOT
        right = (shown & true).sum()
        # A splat is some 2 pixels wide: the spot's edge is uncertain by one pixel, two where the view is steep. Where
        # the first view sees the ball at a grazing angle it has less of a say: views from further round show less.
        # On the ball's outline a flat splat can show as a sliver.
        wanted = (0.85 if view in (0, 1, 2) else 0.5) * shown.sum()
        assert shown.sum() <= 8 or right >= wanted, f"view {view}: {right} of {shown.sum()}"
        if view in (1, 2):
            assert right > 0.45 * true.sum(), f"view {view}: {right} of {true.sum()}"
    assert outcome.others == sum(n > 5 for v, n in outcome.changed.items() if v != FRONT) >= 3
    assert 0 <= outcome.changed[FRONT] - (truth[FRONT] == SPOT).sum() <= 5  # what was said, and pixels at its edge
    assert BACK not in outcome.changed
    assert 0 < outcome.gaussians < 900 / 2


def test_views_that_do_not_see_the_place_are_left_exactly_as_they_were():
    head = spotted.head()
    before = head.shown.copy()
    outcome = edit(head, FRONT, spotted.spot())
    assert np.array_equal(head.masks[BACK], head.refined[BACK])
    assert np.array_equal(head.shown[BACK], before[BACK])
    # The moved rows and the cached render stay in step, up to what `reach` leaves out of a pixel.
    again = np.stack([w @ head.probabilities for w in head.weights])
    assert np.abs(again - head.shown).max() <= 2 * head.settings.edit.min_pixel_weight
    moved = np.abs(head.probabilities - head.voted_probabilities).max(-1) > 0
    assert moved.sum() <= outcome.gaussians


def second_voter(damage: int | None = None) -> VoterLabels:
    """Who knows the ball and the spot alone, and looked away in view 2; `damage`: a view in which it saw no spot."""
    truth = spotted.capture().labels
    assert truth is not None
    labels = np.where(truth == SPOT, 2, np.minimum(truth, 1)).astype(np.uint8)
    labels[2] = IGNORE
    if damage is not None:
        labels[damage] = np.minimum(labels[damage], 1)
    return VoterLabels(labels, np.ones(len(labels), np.float32), (frozenset({0}), frozenset({1, 2}), frozenset({3})))


def test_the_rows_are_those_of_the_update_written_out():
    """The module's formula on whole arrays in float64, nothing left out: no small weights, pixels or classes."""
    head = spotted.head([second_voter()], min_pixel_weight=1e-9, min_class_probability=1e-9, rounds=3)
    layer, settings, k = spotted.spot(), head.settings.edit, len(spotted.CLASSES)
    weights = np.concatenate([w.toarray() for w in head.weights]).astype(np.float64)  # all pixels x Gaussians
    seen = [w.toarray().sum(0) for w in head.weights]
    spoken = np.full(head.voices[0].labels.shape, UNTOUCHED)
    touched = layer != UNTOUCHED
    around = np.zeros_like(touched)
    for y, x in np.argwhere(touched):
        around[y - settings.border : y + settings.border + 1, x - settings.border : x + settings.border + 1] = True
    spoken[FRONT] = np.where(around & ~touched, head.mask(FRONT), layer).ravel()
    spoken = spoken.ravel()
    heard = (spoken != UNTOUCHED) & (spoken != 0)

    def influence(mass):
        strength = (
            settings.weight * (mass / np.maximum(np.max(seen, 0), settings.half_weight)) ** settings.visibility_power
        )
        return strength / (1 + strength)

    who = influence(head.weights[FRONT].T @ touched.ravel().astype(float)) >= settings.min_influence
    a = influence(weights[heard].sum(0))[who, None]
    one_hot = np.eye(k)[spoken[heard]]
    rest, pulls = weights[:, ~who] @ head.probabilities[~who], weights[:, who]
    most, likelihoods = np.maximum(*(voice.sure.ravel() for voice in head.voices)), np.float64(1)
    for voice in head.voices:
        of = voice.confusion[np.arange(len(voice.labels))[:, None], :, voice.labels].reshape(-1, k)
        likelihoods = likelihoods * of ** (voice.sure.ravel() / np.maximum(most, 1e-12))[:, None]
    sure = np.where(spoken == UNTOUCHED, most, 0)[:, None]
    first, small = head.voices[0], head.voices[0].small.astype(np.float64)
    said = np.eye(k)[first.labels.ravel()]
    speaks = (first.sure.ravel() / np.maximum(most, 1e-12))[:, None]
    assert 0 < small[1:].min() < small.max() == 1, "a class that is small, and one that is not"
    assert not head.voices[1].small.any()

    def shares(x):
        return x / np.maximum(x.sum(-1, keepdims=True), 1e-12)

    base = head.voted_probabilities[who].astype(np.float64)
    probabilities = (1 - 0.02 * a) * base + 0.02 * a * shares(pulls[heard].T @ one_hot)
    for _ in range(settings.rounds):
        prior = shares(rest + pulls @ probabilities)
        inverse = np.where(prior > 1e-6, 1 / np.maximum(prior, 1e-3), 0)
        own_word = speaks * np.minimum((small * np.maximum(prior, said)).sum(-1, keepdims=True), 1)
        target = own_word * said + (1 - own_word) * shares(prior * likelihoods)
        voters = probabilities * (pulls.T @ (sure * target * inverse))
        voters = np.where(voters.sum(-1, keepdims=True) > 1e-6, shares(voters), base)
        human = probabilities * (
            pulls[heard].T @ (_leading_mixture(prior[heard], spoken[heard], settings.class_margin) * inverse[heard])
        )
        probabilities = shares((1 - a) * voters + a * shares(human))

    edit(head, FRONT, layer)
    assert_close(
        head.probabilities[who], probabilities, 1e-4, "three updates in float32, with divisions by shares down to 1e-3"
    )
    assert np.array_equal(head.probabilities[~who], head.voted_probabilities[~who])


def test_voters_beside_the_first_are_heard():
    alone, two = spotted.head(), spotted.head([second_voter()])
    assert [voice.confusion.shape[2] for voice in two.voices] == [4, 3]
    assert (two.voices[1].sure[2] == 0).all()  # where it says nothing
    likely, sure = likelihood(two.voices, 2, np.arange(SIZE**2), np.arange(4))
    own, weight = likelihood(alone.voices, 2, np.arange(SIZE**2), np.arange(4))
    np.testing.assert_array_equal(sure, weight)
    np.testing.assert_allclose(likely[sure > 0], own[sure > 0], rtol=1e-6)  # to the power of 1, in float32
    confusion = two.voices[1].confusion
    np.testing.assert_array_equal(confusion[:, 1], confusion[:, 2])  # classes of one label
    # Who knows the spot helps the person to show it in the other views, who missed it in one of them less so.
    shown = []
    for others in ([], [second_voter(damage=1)], [second_voter()]):
        head = spotted.head(others, weight=1.0)
        edit(head, FRONT, spotted.spot())
        shown.append((head.masks == SPOT).sum())
    assert shown[0] < shown[1] < shown[2], shown


def test_as_many_threads_as_there_are_cores_give_the_same_bits(monkeypatch):
    heads = []
    for cores in (1, 3, 3):
        monkeypatch.setattr("jsplat.edit.evidence.cores", lambda n=cores: n)
        heads.append(spotted.head())
        edit(heads[-1], FRONT, spotted.spot())
    for other in heads[1:]:
        assert np.array_equal(heads[0].probabilities, other.probabilities)
        assert np.array_equal(heads[0].shown, other.shown)
        assert np.array_equal(heads[0].masks, other.masks)


def test_an_edit_can_be_taken_back():
    head = spotted.head()
    edit(head, FRONT, spotted.spot())
    outcome = edit(head, FRONT, np.full_like(spotted.spot(), UNTOUCHED))
    assert head.layers == {}
    assert (head.masks != head.refined).mean() < 2e-3  # rows go on from the label stage's by a few updates: its edges
    assert outcome.others >= 3


def test_all_edits_at_once_are_close_to_one_after_the_other():
    one, other = spotted.head(), spotted.head()
    layers = {view: spotted.spot(view) for view in (0, 1)}
    for view, layer in layers.items():
        edit(one, view, layer)
    edit_all(other, {view: layer.copy() for view, layer in layers.items()})
    differ = np.mean([one.mask(v) != other.mask(v) for v in range(len(one.masks))])
    assert differ < 5e-3  # the rim is what was shown at the time of each edit


def test_a_person_who_agrees_changes_nothing():
    head = spotted.head()
    seen = head.mask(1).copy()
    outcome = edit(head, 1, np.where(seen > 0, seen, UNTOUCHED).astype(np.uint8))
    # The border of the two halves, some 35 pixels long, may move by half a pixel as the rows go on from where they are.
    assert max(outcome.changed.values(), default=0) < 18


def test_background_corrects_its_own_view_alone():
    head = spotted.head()
    layer = np.full_like(spotted.spot(), UNTOUCHED)
    layer[20:28, 20:28] = 0
    outcome = edit(head, FRONT, layer)
    assert (head.mask(FRONT)[20:28, 20:28] == 0).all()
    assert outcome.others == 0
    assert (head.probabilities[:, 0] == 0).all()


def test_the_named_class_leads_and_a_pixel_where_it_leads_is_left():
    prior = np.float32([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.05, 0.5, 0.45], [0, 0.5, 0.5]])
    won = _leading_mixture(prior, np.asarray([0, 0, 0, 0]), 0.4)
    assert_close(won[0], prior[0], 1e-7, "normalised once more in float32")
    assert_close(won[1], np.asarray([0.65, 0.25, 0.1]), 1e-6, "half of the lead and of the difference change sides")
    assert_close(won.sum(-1), np.ones(4), 1e-6, "mixtures")
    assert_close(won[:, 0] - won[:, 1:].max(-1), np.asarray([0.5, 0.4, 0.4, 0.4]), 1e-6, "the lead asked for, or more")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (np.full((48, 47), 255, np.uint8), r"edit: layer: wanted one 8-bit channel of shape \(48, 48\)"),
        (np.full((48, 48), 9, np.uint8), r"edit: layer: wanted class ids below 4 or 255, got \[9\]"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(layer, message):
    head = spotted.head()
    with pytest.raises(InputError, match=message):
        edit(head, 0, layer)
    with pytest.raises(InputError, match="edit: view: wanted 0 to 7, got 8"):
        edit(head, 8, spotted.spot())
    assert head.layers == {}


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"EditConfig\.weight: wanted a positive number, got 0"):
        EditConfig(weight=0.0)
    with pytest.raises(InputError, match=r"EditConfig\.class_margin"):
        EditConfig(class_margin=1.0)
    with pytest.raises(InputError, match="EditConfig: border, min_blend_weight"):
        EditConfig(border=-1)
