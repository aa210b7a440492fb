"""Masks leave a run for another program, are corrected there, and come back as edits: what changed, nothing else."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures.importers.lens import Lens
from jsplat.captures.index import list_captures
from jsplat.captures.own_pixels import own_pixels
from jsplat.cli import group
from jsplat.edit import UNTOUCHED, EditConfig, edits_on_disk
from jsplat.errors import InputError
from jsplat.exchange import export_masks, import_masks
from jsplat.files.atomic import write_json
from jsplat.pipeline import RunConfig
from jsplat.pipeline.corrections import changes, take_corrections
from jsplat.pipeline.digests import Digests
from jsplat.pipeline.fingerprints import edits_of
from jsplat.pipeline.stages.label import labels_of
from jsplat.pipeline.stages.own import write_own_masks
from tests import spotted
from tests.spotted import CLASSES, FRONT, SIZE, SPOT

OWN = 2 * SIZE
NAMES = [f"ball/IMG_{i}" for i in range(len(spotted.YAW))]
SPOT_AT = np.hypot(*(np.mgrid[:OWN, :OWN] + 0.5 - OWN / 2)) < 14


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The ball's run, whose pictures were twice as large, upside down, and taken through a lens."""
    run = spotted.write_run(tmp_path_factory.mktemp("corrected"))
    folder = run.parent / "captures" / "ball"
    k = np.asarray(spotted.capture().cameras.resized(OWN, OWN).intrinsics[0], np.float64)
    about = {"lens": Lens(k, OWN, OWN, (0.5,)).to_json(), "orientation": 1, "quarter_turns": 2, "frame": None}
    views = [{"picture": f"images/{i:03d}.png", "source": f"IMG_{i}.jpg"} | about for i in range(len(NAMES))]
    write_json(folder / "import.json", {"folder": "/photographs", "views": views})
    listed = list_captures(folder.parent, SIZE)

    def known(name):
        return labels_of(run / "label", name, CLASSES)

    write_own_masks(listed, run / "fit", known, lambda _: {}, CLASSES, RunConfig(size=SIZE), run / "masks")
    write_json(run / "masks" / "run.json", {"config": {"edits": {"ball": edits_of(run, "ball", Digests())}}})
    return run


@pytest.fixture
def run(finished):
    """The same without edits."""
    shutil.rmtree(finished / "edits", ignore_errors=True)
    return finished


def polygons(mask: np.ndarray, label: int) -> list[list[float]]:
    """Outlines through the middles of a region's outermost pixels, as OpenCV and the tools that use it find them."""
    found, _ = cv2.findContours((mask == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(c[:, 0] + 0.5).ravel().tolist() for c in found if len(c) > 2]


def saved_as_polygons(masks: dict[str, np.ndarray], form: str, out: Path) -> None:
    """Masks as a program saves them that keeps nothing but polygons."""
    export_masks(masks, CLASSES, form, out)
    for path in out.rglob("*.json"):
        data = json.loads(path.read_text())
        if form == "labelme":
            mask = masks[path.relative_to(out).with_suffix("").as_posix()]
            data["shapes"] = [
                {"label": CLASSES.names[i], "shape_type": "polygon", "points": np.reshape(flat, (-1, 2)).tolist()}
                for i in range(1, len(CLASSES))
                for flat in polygons(mask, i)
            ]
        else:
            names = {image["id"]: image["file_name"].removesuffix(".png") for image in data["images"]}
            for one in data["annotations"]:
                one["segmentation"] = polygons(masks[names[one["image_id"]]], one["category_id"] - 1)
        path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("form", "save"),
    [
        *((form, lambda m, form, out: export_masks(m, CLASSES, form, out)) for form in ("cvat", "labelme", "coco")),
        *((form, saved_as_polygons) for form in ("labelme", "coco")),
    ],
)
def test_what_was_corrected_elsewhere_is_an_edit_and_nothing_else(run, tmp_path, form, save):
    call = CliRunner().invoke(cli.main, ["export-masks", str(run), str(tmp_path / "out.zip"), "--format", form])
    assert call.exit_code == 0, call.output
    masks = import_masks(tmp_path / "out.zip", CLASSES)
    assert sorted(masks) == NAMES
    save(masks, form, tmp_path / "same")
    taken = take_corrections(run, tmp_path / "same", None, EditConfig())
    assert (taken.edited, taken.small, sorted(taken.same)) == ({}, [], NAMES)
    assert not (run / "edits").exists()

    masks[NAMES[FRONT]] = np.where(SPOT_AT, np.uint8(SPOT), masks[NAMES[FRONT]])
    save(masks, form, tmp_path / "corrected")
    taken = take_corrections(run, tmp_path / "corrected", None, EditConfig())
    assert list(taken.edited) == [NAMES[FRONT]]
    (layer,) = edits_on_disk.read_layers(run, "ball", CLASSES).values()
    want = SPOT_AT.reshape(SIZE, 2, SIZE, 2).mean((1, 3)) >= 0.5  # the middle of the lens bends nothing
    assert {*np.unique(layer)} == {SPOT, UNTOUCHED}
    assert ((layer == SPOT) & want).sum() > 0.9 * ((layer == SPOT) | want).sum()
    edits_on_disk.check_pictures(run, "ball", spotted.capture().images)


def test_an_edit_elsewhere_adds_to_what_was_drawn(run, tmp_path, monkeypatch):
    """Through the command; the picture's own pixels come back at their place in a picture that is upside down."""
    monkeypatch.setattr(group, "prepare", lambda: None)
    before = import_masks(run / "masks", CLASSES)
    export_masks(before, CLASSES, "indexed", tmp_path / "exported")
    own = own_pixels(run.parent / "captures" / "ball")[FRONT]
    lower = np.full((SIZE, SIZE), UNTOUCHED, np.uint8)
    lower[30:34, 22:26] = SPOT
    edits_on_disk.write_layer(run, "ball", FRONT, lower, spotted.capture().images[FRONT], CLASSES)
    with pytest.raises(InputError, match="wanted masks with all that was drawn"):
        take_corrections(run, tmp_path / "exported", None, EditConfig())
    camera = spotted.capture().cameras[FRONT]
    k = np.asarray(camera.intrinsics, np.float64)
    (place,), _ = own.pixels((np.asarray([[20.0, 16.0]]) - k[:2, 2]) / k[[0, 1], [0, 1]])
    x, y = place.round().astype(int)
    assert y > OWN / 2, "what lies above in the capture lies below in the picture"
    changed = before[NAMES[FRONT]].copy()
    changed[y - 4 : y + 4, x - 4 : x + 4] = SPOT
    export_masks({"IMG_0": changed}, CLASSES, "indexed", tmp_path / "one")  # a tool that lost the folder
    command = ["edit", str(run), "--from", str(tmp_path / "one"), "--exported", str(tmp_path / "exported")]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    assert "1 pictures corrected (16 pixels), 0 the same" in result.output
    (layer,) = edits_on_disk.read_layers(run, "ball", CLASSES).values()
    assert (layer[30:34, 22:26] == SPOT).all()
    assert (layer[14:18, 18:22] == SPOT).all()
    assert (layer == SPOT).sum() == 32


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("IMG_0", 7, "ball/IMG_0: wanted 96x96 pixels, as it was exported, got 7x7 pixels"),
        ("eve", 7, "masks by the names of the export, as ball/IMG_0, got eve"),
    ],
)
def test_masks_that_are_none_of_the_runs(run, tmp_path, name, size, message):
    export_masks({name: np.zeros((size, size), np.uint8)}, CLASSES, "indexed", tmp_path / "m")
    with pytest.raises(InputError, match=message):
        take_corrections(run, tmp_path / "m", None, EditConfig())


def test_outlines_that_moved_and_gaps_are_no_changes():
    before = np.zeros((40, 40), np.uint8)
    before[5:35, 5:20], before[5:35, 20:35] = 1, 2
    after = np.zeros_like(before)
    after[6:35, 5:19], after[5:34, 20:34] = 1, 2  # a pixel less here and there, and a gap between the two
    assert not changes(before, after, 1).any()
    assert changes(before, after, 0).sum() == (before != after).sum()
    after[10:30, 12] = 3  # a new line, one pixel wide
    after[5:9, 24:28] = 0  # a piece less
    found = changes(before, after, 1)
    assert found[10:30, 12].all()
    assert found[5:9, 24:28].all()
    assert not found[:, :10].any()
    assert not found[12:, 17:].any()
    ignored = np.where(before == 1, np.uint8(255), before)
    assert not changes(before, ignored, 0).any(), "ignore says nothing"
