"""Films and views of a fitted head, and studies of a run, on a ball that is a finished run."""

import json
import shutil
import sys
import types

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.captures.capture import read_json, write_capture
from jsplat.captures.films import write_film
from jsplat.captures.pictures import write_png
from jsplat.edit import EditConfig
from jsplat.errors import InputError
from jsplat.exchange import SplatLabels, write_ply
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import save_scenes
from jsplat.labels.opinions import Maps, Voter
from jsplat.pipeline import RunConfig, showing, studies
from jsplat.pipeline.editing import open_run
from jsplat.pipeline.first_labels import voter_arrays
from jsplat.pipeline.showing import TurntableConfig, turning, turntable, view
from jsplat.pipeline.stages.label import label_settings
from jsplat.pipeline.studies import StudyConfig, make_study, study_of, study_results
from jsplat.pipeline.work_folder import load_arrays, save_arrays
from jsplat.raster.scene import Attributes, Scene, rgb_to_sh
from tests import ball

PEOPLE = ("left", "right", "other")
FEW = StudyConfig(pairs=2, ratings=1, checks=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on three balls (the last was trained on by nobody): orange, classes by side, sure on the left half."""
    root = tmp_path_factory.mktemp("finished")
    run, config = root / "run", RunConfig()
    gaussians = ball.gaussians()
    means = np.asarray(gaussians.means)
    probabilities = np.where(means[:, :1] > 0, [[0, 1.0, 0]], [[0, 0.25, 0.75]]).astype(np.float32)
    orange = jnp.broadcast_to(jnp.asarray([1.0, 0.5, 0.0]), means.shape)
    scene = Scene(gaussians, Attributes(rgb_to_sh(orange), jnp.asarray(probabilities)))
    for name in PEOPLE:
        capture = ball.capture(name)
        write_capture(root / "captures" / name, capture)
        labels = capture.labels
        (run / "parse").mkdir(parents=True, exist_ok=True)
        (run / "label").mkdir(parents=True, exist_ok=True)
        guess = np.where(labels > 0, 3 - labels, 0).astype(np.uint8)  # a teacher who swaps the sides
        save_arrays(run / "parse" / f"{name}.npz", **voter_arrays([Voter("parser", ball.SIDES, Maps(guess, 3))]))
        plain = np.where(labels == 2, 1, labels).astype(np.uint8)
        save_arrays(run / "label" / f"{name}.npz", refined=labels, vote_plain=plain, rows_refined=probabilities)
    (run / "fit").mkdir()
    lead = [Scene(gaussians, scene.attributes)] * len(PEOPLE)
    save_scenes(run / "fit", _stack(lead), list(PEOPLE), ball.SIDES)
    write_json(run / "label" / "run.json", {"config": label_settings(config), "fingerprint": "1abe1"})
    write_json(run / "label" / "labelset.json", ball.SIDES.to_json())
    write_json(run / "parse" / "run.json", {"config": {"flip": True, "enlarge": 1.1}, "fingerprint": "9a45e"})
    samples = [json.dumps({"identity": name}) + "\n" for name in PEOPLE[:2]]
    (run / "render" / "student").mkdir(parents=True)
    (run / "render" / "student" / "samples.jsonl").write_text("".join(samples))
    return run


def _stack(scenes):
    import jax

    return jax.tree.map(lambda *x: jnp.stack(x), *scenes)


# Films


def test_a_film_turns_the_head(finished, tmp_path):
    out = tmp_path / "films" / "turn.mp4"
    frames = turntable(finished, out, TurntableConfig(seconds=2.0, fps=4, size=63), identity="right")
    assert frames == 8
    assert [p.name for p in out.parent.iterdir()] == ["turn.mp4"]
    film = cv2.VideoCapture(str(out))
    pictures = [film.read()[1][..., ::-1] for _ in range(8)]
    assert not film.read()[0]
    assert film.get(cv2.CAP_PROP_FPS) == 4
    assert {p.shape for p in pictures} == {(64, 128, 3)}
    middle = slice(28, 36)
    # The codec smears colours: 40 of 255 is far from any other colour here.
    for i, picture in enumerate(pictures):
        np.testing.assert_allclose(picture[middle, middle].mean((0, 1)), [255, 128, 0], atol=40)
        np.testing.assert_allclose(picture[:6, :6].mean((0, 1)), ball.BEHIND, atol=40)
        np.testing.assert_allclose(picture[:6, 64:70].mean((0, 1)), 0, atol=40)
        if i in (2, 6):  # from the person's left, then from the right
            seen = picture[middle, 64 + 28 : 64 + 36].mean((0, 1))
            np.testing.assert_allclose(seen, ball.SIDES.colors[1 if i == 2 else 2], atol=40)


def test_the_camera_goes_where_photographs_stand():
    around = turning(np.arange(8) * 45.0 - 180, 8)
    np.testing.assert_allclose(around, np.arange(8) * 45.0)
    swing = turning(np.asarray([-80.0, 0, 50, 100]), 8)
    np.testing.assert_allclose([swing.max(), swing.min(), swing[0]], [100, -80, 10])
    # The last frame is followed by the first: no step there is larger than elsewhere.
    assert abs(swing[-1] - swing[0]) <= np.abs(np.diff(swing)).max() + 1e-9


def test_a_film_that_fails_leaves_nothing(tmp_path):
    def picture(i: int) -> np.ndarray:
        return np.full((16, 32 // (1 - i), 3), 9, np.uint8)  # the second divides by zero

    (tmp_path / "turn.mp4").write_text("an older one")
    with pytest.raises(ZeroDivisionError):
        write_film(tmp_path / "new.mp4", 24.0, map(picture, range(2)))
    with pytest.raises(InputError, match="wanted a new name"):
        write_film(tmp_path / "turn.mp4", 24.0, map(picture, range(2)))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("turn.mp4", "an older one")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 0.0}, "turntable: seconds: wanted more than 0, at most 600, got 0.0"),
        ({"seconds": float("nan")}, "turntable: seconds: wanted more than 0"),
        ({"fps": 0}, "turntable: fps: wanted 1 to 120, got 0"),
        ({"size": 8}, "turntable: size: wanted 16 to 2160 pixels, got 8"),
    ],
)
def test_film_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        TurntableConfig(**change)


def test_what_is_not_there_is_named(finished, tmp_path):
    with pytest.raises(InputError, match="identity: wanted one of left, other, right, got nobody"):
        turntable(finished, tmp_path / "a.mp4", TurntableConfig(), identity="nobody")
    with pytest.raises(InputError, match=r"OUT: wanted a file that ends in \.mp4, got a\.avi"):
        turntable(finished, tmp_path / "a.avi", TurntableConfig())


def test_the_captures_are_where_the_run_says_or_beside_it(finished, tmp_path):
    run = tmp_path / "runs" / "first"
    shutil.copytree(finished, run)
    with pytest.raises(
        InputError, match=r"runs/captures: wanted the captures of this run, got no such folder; `--captures`"
    ):
        open_run(run, None, EditConfig())
    label = run / "label" / "run.json"  # as `jsplat label` leaves it
    about = read_json(label)
    write_json(label, about | {"config": about["config"] | {"captures": str(finished.parent / "captures")}})
    assert set(open_run(run, None, EditConfig()).captures) == set(PEOPLE)
    write_json(run / "run.json", {"captures": str(tmp_path / "gone")})  # as `jsplat run` does
    with pytest.raises(InputError, match=r"gone: wanted the captures of this run"):
        open_run(run, None, EditConfig())
    write_json(run / "run.json", {"captures": str(finished.parent / "captures")})
    assert set(open_run(run, None, EditConfig()).captures) == set(PEOPLE)


# The viewer


class _Server:
    """What jsplat uses of viser's server, written down."""

    def __init__(self, options):
        self.options, self.layers, self.up = options, {}, None
        self.scene = self.gui = self
        self.initial_camera = types.SimpleNamespace()

    def set_up_direction(self, up):
        self.up = up

    def add_gaussian_splats(self, name, centers, covariances, rgbs, opacities, visible):
        parts = {"centers": centers, "covariances": covariances, "rgbs": rgbs, "opacities": opacities}
        self.layers[name] = types.SimpleNamespace(visible=visible, **parts)
        return self.layers[name]

    def add_dropdown(self, label, options):
        self.choice = types.SimpleNamespace(value=options[0], options=options)
        self.choice.on_update = lambda function: setattr(self, "chosen", function)
        return self.choice


def test_the_viewer_shows_what_was_fitted(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", types.SimpleNamespace())
    monkeypatch.setattr(showing, "guarded_server", lambda _, *options: (_Server(options), "http://here"))
    server, address = view(finished, identity="left", port=8099)
    assert (server.options, address) == ((8099, "jsplat: left"), "http://here")
    assert server.up == "+y"
    gaussians = ball.gaussians()
    colors = {name: layer.rgbs for name, layer in server.layers.items()}
    half = np.asarray(gaussians.means)[:, 0] > 0
    np.testing.assert_allclose(colors["/RGB"], np.broadcast_to([1, 0.5, 0], (200, 3)), atol=1e-6)
    np.testing.assert_array_equal(colors["/labels"], np.where(half[:, None], [1.0, 0, 0], [0, 0, 1.0]))
    sure, unsure = colors["/confidence"][half], colors["/confidence"][~half]
    assert np.ptp(sure, 0).max() == np.ptp(unsure, 0).max() == 0
    assert sure[0].sum() > unsure[0].sum()
    for layer in server.layers.values():
        # The ball is the head's frame already: a Gaussian's variances are its squared scales, thin along the normal.
        np.testing.assert_allclose(layer.centers, gaussians.means, atol=1e-7)
        values = np.linalg.eigvalsh(layer.covariances)
        np.testing.assert_allclose(values, np.sort(np.exp(2 * np.asarray(gaussians.log_scales))), rtol=1e-4)
        normal = np.asarray(gaussians.means) / ball.RADIUS
        along = np.einsum("ni,nij,nj->n", normal, layer.covariances, normal)
        np.testing.assert_allclose(along, values[:, 0], rtol=1e-3)
        np.testing.assert_allclose(layer.opacities, np.full((200, 1), 0.97), atol=1e-6)
    assert [name for name, layer in server.layers.items() if layer.visible] == ["/RGB"]
    server.choice.value = "confidence"
    server.chosen(None)
    assert [name for name, layer in server.layers.items() if layer.visible] == ["/confidence"]
    np.testing.assert_allclose(server.initial_camera.position, [0, 0, ball.DISTANCE], atol=1e-3)
    np.testing.assert_allclose(server.initial_camera.look_at, 0, atol=1e-3)
    assert 2 * ball.DISTANCE * np.tan(server.initial_camera.fov / 2) == pytest.approx(ball.ACROSS)


def test_a_ply_is_shown_with_what_its_splats_are(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", types.SimpleNamespace())
    monkeypatch.setattr(showing, "guarded_server", lambda _, *options: (_Server(options), "http://here"))
    gaussians = ball.gaussians()
    sh = rgb_to_sh(jnp.full((200, 3), 0.25))
    one = Scene(gaussians, Attributes(sh, jnp.zeros((200, 0))))
    probabilities = np.where(np.asarray(gaussians.means)[:, :1] > 0, [[0, 1, 0]], [[0, 0, 1]]).astype(np.float32)
    write_ply(tmp_path / "a.ply", one, SplatLabels.likeliest(probabilities, ball.SIDES))
    write_ply(tmp_path / "b.ply", one)
    server, _ = view(tmp_path / "a.ply")
    assert server.choice.options == ("RGB", "labels", "confidence")
    np.testing.assert_array_equal(server.layers["/labels"].rgbs, probabilities[:, 1:] @ [[1, 0, 0], [0, 0, 1]])
    half = server.initial_camera.position[2] * np.tan(server.initial_camera.fov / 2)
    assert half == pytest.approx(2 * ball.RADIUS, rel=0.1)  # half of the height is the ball
    assert view(tmp_path / "b.ply")[0].choice.options == ("RGB",)
    with pytest.raises(InputError, match=r"--captures and --identity with a run only, got a PLY, b\.ply"):
        view(tmp_path / "b.ply", identity="ada")


def test_without_viser_the_extra_is_named(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(
        InputError, match=r"view: wanted the package viser.*, got none installed; `pip install 'jsplat\[view\]'`"
    ):
        view(finished)


# Studies


@pytest.fixture
def with_student(finished, monkeypatch):
    """A student who is right on everybody."""
    (finished / "student" / "parser").mkdir(parents=True, exist_ok=True)
    write_json(finished / "student" / "run.json", {"fingerprint": "57d"})
    asked = []

    def predict(parser, images, *, flip):
        asked.append((parser, flip))
        return ball.capture().labels

    monkeypatch.setattr(studies, "load_parser", lambda *_: "a parser")
    monkeypatch.setattr(studies, "enlarged", lambda parser, factor: f"{parser}, {factor:g} times as large")
    monkeypatch.setattr(studies, "predict_labels", predict)
    return asked


def test_raters_see_the_plain_vote_sharpened_where_the_run_made_that(finished, with_student, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for name in PEOPLE:
        arrays = load_arrays(run / "label" / f"{name}.npz")
        save_arrays(run / "label" / f"{name}.npz", **arrays, plain_sharpened=arrays["vote_plain"])
    key = make_study(run, tmp_path / "study", FEW, 0, captures=finished.parent / "captures")
    assert key["comparisons"] == [["student", "teacher"], ["refined", "plain_sharpened"]]


def test_a_study_of_a_run(finished, with_student, tmp_path):
    key = make_study(finished, tmp_path / "study", FEW, 0)
    assert key["comparisons"] == [["student", "teacher"], ["refined", "vote_plain"]]
    # One person was not trained on; mirrored and enlarged like the first labels.
    assert with_student == [("a parser, 1.1 times as large", True)]
    students = [x for x in key["items"].values() if "student" in (x.get("left"), x.get("right"), x.get("method"))]
    assert {x["identity"] for x in students} == {"other"}
    assert key["masks"] == {"parse": "9a45e", "label": "1abe1", "student": "57d"}
    assert sorted(p.name for p in (tmp_path / "study").iterdir()) == [
        ".written.json",
        "key.json",
        "run.json",
        "study.html",
    ]
    page = (tmp_path / "study" / "study.html").read_bytes()
    assert make_study(finished, tmp_path / "study", FEW, 0) == key  # the same study may be made again
    assert (tmp_path / "study" / "study.html").read_bytes() == page
    with pytest.raises(InputError, match="wanted a new folder, got another study, which may have been answered"):
        make_study(finished, tmp_path / "study", FEW, 1)


def test_ours_against_theirs(finished, with_student, tmp_path):
    for view_ in range(8):
        write_png(tmp_path / "theirs" / "left" / "labels" / f"{view_:03d}.png", np.ones((32, 32), np.uint8))
    key = make_study(finished, tmp_path / "study", FEW, 0, against=tmp_path / "theirs")
    assert key["comparisons"][-1] == ["refined", "theirs"]
    assert {x["identity"] for x in key["items"].values() if "theirs" in (x.get("left"), x.get("right"))} == {"left"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: wanted masks of left, other, right \(IDENTITY/labels/000\.png\)"):
        make_study(finished, tmp_path / "study2", FEW, 0, against=tmp_path / "empty")
    write_png(tmp_path / "theirs" / "left" / "labels" / "003.png", np.ones((16, 32), np.uint8))
    with pytest.raises(InputError, match=r"left/labels/003\.png: wanted one 8-bit channel of 32x32 pixels"):
        make_study(finished, tmp_path / "study2", FEW, 0, against=tmp_path / "theirs")


def test_results_reach_the_run_they_are_about(finished, with_student, tmp_path):
    key = make_study(finished, tmp_path / "study", FEW, 0)
    assert study_of(finished) is None
    answers = {i: {"answer": x.get("answer", "same"), "seconds": 1} for i, x in key["items"].items()}
    answers |= {i: {"answer": 3, "seconds": 1} for i, x in key["items"].items() if x["kind"] == "rating"}
    write_json(tmp_path / "a.json", {"study": key["study"], "rater": "0123abcd", "answers": answers})
    found = study_results(tmp_path / "study", [tmp_path / "a.json"], finished)
    assert found["ratings"]["student"] == {"n": 1, "mean": 3.0, "interval": None}
    assert json.loads((tmp_path / "study" / "study.json").read_text()) == study_of(finished) == found
    write_json(finished / "student" / "run.json", {"fingerprint": "another"})
    assert study_of(finished) is None
    with pytest.raises(
        InputError, match=r"wanted the run this study was made of, unchanged, got other masks; without `--run`"
    ):
        study_results(tmp_path / "study", [tmp_path / "a.json"], finished)
    (finished / "study.json").unlink()
