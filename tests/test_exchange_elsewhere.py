"""Masks that other programs saved again or drew: palettes in another order, pictures beside JSON, boxes, odd names."""

import contextlib
import json
import re
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_exchange import SMALL, THREE, chunk, coco_file, labelme_file, png_of, same, written

from jsplat.captures import label_png
from jsplat.errors import InputError
from jsplat.exchange import export_masks, import_masks
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet
from jsplat.labelsets.tables import CELEBAMASK_HQ_OFFICIAL, mapping

FACE = np.zeros((12, 16), np.uint8)
for _i, _name in enumerate(("skin", "l_eye", "r_eye", "ear_r", "hair", "hat")):
    FACE[_i, 2:14] = CELEBAMASK_HQ.id(_name)
FACE[8:10] = IGNORE


def zipped(folder: Path, slash: str = "/") -> Path:
    """The folder as an archive, as programs on Windows write it with the other slash."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo("x")
            entry.filename = str(file.relative_to(folder)).replace("/", slash)
            archive.writestr(entry, file.read_bytes())
    return folder.with_suffix(".zip")


def saved_again(file: Path, order: np.ndarray, text: bool) -> None:
    """The same picture with its palette in another order, or only a part of it; with its text or without."""
    before = label_png.decode(file.read_bytes(), "x")
    number = np.zeros(256, np.uint8)
    number[order] = np.arange(len(order))
    file.write_bytes(label_png.encode(number[before.ids], before.palette[order], before.text if text else {}))


PRESENT = np.unique(FACE)
ORDERS = {
    "pruned": PRESENT,
    "backwards": PRESENT[::-1],
    "turned": np.roll(np.arange(256), 9),
    "the last first": np.r_[IGNORE, np.arange(IGNORE)],
    "classes first": np.r_[PRESENT, np.setdiff1d(np.arange(256), PRESENT)],
}


@pytest.mark.parametrize("text", [True, False], ids=["names in the file", "names beside it"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_palette_in_another_order_keeps_every_class(tmp_path, order, text):
    export_masks({"ada/000": FACE}, CELEBAMASK_HQ, "indexed", tmp_path / "x")
    saved_again(tmp_path / "x/ada/000.png", ORDERS[order], text)
    same(import_masks(tmp_path / "x", CELEBAMASK_HQ), {"ada/000": FACE})
    turned = mapping(CELEBAMASK_HQ, CELEBAMASK_HQ_OFFICIAL)[FACE]
    same(import_masks(tmp_path / "x", CELEBAMASK_HQ_OFFICIAL), {"ada/000": turned})


def test_colours_instead_of_a_palette_and_packed_text(tmp_path):
    export_masks({"a": FACE}, CELEBAMASK_HQ, "indexed", tmp_path / "x")
    file = tmp_path / "x/a.png"
    before = label_png.decode(file.read_bytes(), "a")
    colors = before.palette[before.ids][..., ::-1]
    file.write_bytes(png_of(colors))
    same(import_masks(tmp_path / "x", CELEBAMASK_HQ), {"a": FACE})
    file.write_bytes(png_of(np.dstack([colors, np.full(FACE.shape, 255, np.uint8)])))
    same(import_masks(tmp_path / "x", CELEBAMASK_HQ), {"a": FACE})
    file.write_bytes(png_of(np.dstack([colors, np.full(FACE.shape, 254, np.uint8)])))
    with pytest.raises(InputError, match=r"a\.png: wanted opaque colours, got transparent pixels"):
        import_masks(tmp_path / "x", CELEBAMASK_HQ)
    file.write_bytes(png_of(cv2.blur(colors, (2, 2))))
    with pytest.raises(InputError, match=r"a\.png: colours: wanted colours of classes, got \(\d+, \d+, \d+\)"):
        import_masks(tmp_path / "x", CELEBAMASK_HQ)
    packed = b"label-set\0\0" + zlib.compress(before.text["label-set"].encode())
    plain = label_png.encode(before.ids[:, ::-1], before.palette)
    file.write_bytes(plain[:33] + chunk(b"zTXt", packed) + plain[33:])
    (tmp_path / "x/labels.json").unlink()
    same(import_masks(tmp_path / "x", CELEBAMASK_HQ), {"a": FACE[:, ::-1]})


def older(path: Path, ids: np.ndarray) -> Path:
    """What was exported when ignored pixels were white, as earrings are."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[:19] = CELEBAMASK_HQ.colors
    path.mkdir(parents=True)
    (path / "a.png").write_bytes(label_png.encode(ids, palette, {"label-set": json.dumps(CELEBAMASK_HQ.to_json())}))
    return path


def test_older_files_are_read_where_their_white_means_one_thing(tmp_path):
    same(import_masks(older(tmp_path / "x", FACE), CELEBAMASK_HQ), {"a": FACE})
    saved_again(tmp_path / "x/a.png", PRESENT, True)
    message = r"a\.png: colours: wanted a colour of its own .* got \(255, 255, 255\) for ear_r and __ignore__"
    with pytest.raises(InputError, match=message):
        import_masks(tmp_path / "x", CELEBAMASK_HQ)
    plain = np.where((FACE == IGNORE) | (CELEBAMASK_HQ.id("ear_r") == FACE), 0, FACE).astype(np.uint8)
    older(tmp_path / "y", plain)
    saved_again(tmp_path / "y/a.png", np.unique(plain)[::-1], True)
    same(import_masks(tmp_path / "y", CELEBAMASK_HQ), {"a": plain})


def test_classes_that_share_a_colour(tmp_path):
    """Ours are told apart when they are written; others' are refused once their palette was touched."""
    written(tmp_path / "x", "indexed")
    saved_again(tmp_path / "x/a.png", np.unique(SMALL)[::-1], True)
    same(import_masks(tmp_path / "x", THREE), {"a": SMALL})
    (tmp_path / "y").mkdir()
    (tmp_path / "y/labels.json").write_text(json.dumps(THREE.to_json() | {"ignore": [1, 2, 3]}))
    white = np.array([[255, 255, 255], [255, 255, 255], [9, 9, 9]], np.uint8)
    (tmp_path / "y/a.png").write_bytes(label_png.encode(np.array([[0, 1, 2]], np.uint8), white))
    with pytest.raises(InputError, match=r"colours: wanted a colour of its own .* for skin and hair"):
        import_masks(tmp_path / "y", THREE)
    (tmp_path / "y/a.png").write_bytes(label_png.encode(np.array([[2, 2]], np.uint8), white))
    same(import_masks(tmp_path / "y", THREE), {"a": np.array([[0, 0]], np.uint8)})
    (tmp_path / "y/labels.json").write_text(json.dumps(THREE.to_json() | {"ignore": [1, 2]}))
    with pytest.raises(InputError, match=r"labels\.json: ignore: wanted a colour \[r, g, b\]"):
        import_masks(tmp_path / "y", THREE)


def test_grey_levels_that_were_a_palette(tmp_path):
    """A palette of nothing but greys may come back as grey levels: then they are colours, or nobody can tell."""
    greys = LabelSet(("background", "skin"), ((0, 0, 0), (77, 77, 77)), ("background", "skin"))
    (tmp_path / "labels.json").write_text(json.dumps(greys.to_json() | {"ignore": [1, 1, 1]}))
    (tmp_path / "a.png").write_bytes(png_of(np.array([[0, 77]], np.uint8)))
    same(import_masks(tmp_path, greys), {"a": np.array([[0, 1]], np.uint8)})
    (tmp_path / "a.png").write_bytes(png_of(np.array([[0, 1]], np.uint8)))
    with pytest.raises(InputError, match=r"a\.png: wanted an indexed PNG; this grey one may hold ids, or colours"):
        import_masks(tmp_path, greys)
    (tmp_path / "a.png").write_bytes(png_of(np.array([[0, IGNORE]], np.uint8)))
    same(import_masks(tmp_path, greys), {"a": np.array([[0, IGNORE]], np.uint8)})


def test_the_names_of_the_nearest_folder_count(tmp_path):
    other = LabelSet(("background", "hair", "skin"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), ("background", "hair", "skin"))
    for folder, labelset in (("x", THREE), ("y/z", other)):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "labels.json").write_text(json.dumps(labelset.to_json()))
        (tmp_path / folder / "deep/a.png").write_bytes(png_of(np.array([[1, 1, 2]], np.uint8)))
    wanted = {"x/deep/a": np.array([[1, 1, 2]], np.uint8), "y/z/deep/a": np.array([[2, 2, 1]], np.uint8)}
    same(import_masks(tmp_path, THREE), wanted)
    (tmp_path / "b.png").write_bytes(png_of(np.array([[1]], np.uint8)))
    with pytest.raises(InputError, match=r"b\.png: wanted class names in its text or in labels\.json, got none"):
        import_masks(tmp_path, THREE)


# Pictures beside JSON.


def panoptic(folder: Path, masks: dict) -> None:
    """COCO's panoptic layout: the JSON, and a folder of its name with the segments."""
    images, annotations = [], []
    for i, (name, mask) in enumerate(masks.items(), 1):
        images.append({"id": i, "file_name": f"{name}.png", "height": mask.shape[0], "width": mask.shape[1]})
        numbers = np.where(mask == 0, 0, mask.astype(int) * 60001)
        rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
        file = folder / "annotations/panoptic_default" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png_of(rgb[..., ::-1]))
        parts = [{"id": int(n) * 60001, "category_id": int(n) + 1} for n in np.unique(mask) if n]
        annotations.append({"image_id": i, "file_name": f"{name}.png", "segments_info": parts})
    names = [*enumerate(CELEBAMASK_HQ.names, 1), (IGNORE + 1, "__ignore__")]
    data = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": n} for i, n in names]}
    (folder / "annotations/panoptic_default.json").write_text(json.dumps(data))


@pytest.mark.parametrize("form", ["labelme", "coco", "panoptic"])
def test_pictures_beside_json_are_no_masks(tmp_path, capsys, form):
    """Colour, grey and indexed PNG, JPEG; in a folder and in archives with either slash."""
    masks = {f"ada/00{i}": FACE for i in range(4)}
    folder = tmp_path / f"masks of {form}"
    if form == "panoptic":
        panoptic(folder, masks)
    else:
        export_masks(masks, CELEBAMASK_HQ, form, folder)
    place = folder / ("ada" if form == "labelme" else "images/default/ada")
    place.mkdir(parents=True, exist_ok=True)
    color = np.zeros((*FACE.shape, 3), np.uint8) + np.array([7, 80, 200], np.uint8)
    (place / "000.png").write_bytes(png_of(color))
    (place / "001.png").write_bytes(png_of(color[..., 0]))
    (place / "002.png").write_bytes(label_png.encode(FACE % 2, np.array([[9, 9, 9], [90, 0, 0]], np.uint8)))
    cv2.imwrite(str(place / "003.jpg"), color)
    for path in (folder, zipped(folder), zipped(folder, "\\")):
        same(import_masks(path, CELEBAMASK_HQ), masks)
    assert capsys.readouterr().err == ""


def test_what_is_passed_over_is_counted_by_kind_once(tmp_path, capsys):
    folder = tmp_path / "masks of somebody"
    export_masks({"ada/000": FACE}, CELEBAMASK_HQ, "labelme", folder)
    for name in ("ada/000.png", "ada/7.png", "ada/8.PNG", "notes.txt", "ada/._000.json", ".DS_Store", "ada/9.jpg"):
        (folder / name).write_bytes(b"anything")
    (folder / "classes.json").write_text("{}")
    for _ in range(2):
        same(import_masks(folder, CELEBAMASK_HQ), {"ada/000": FACE})
    log = capsys.readouterr().err.splitlines()
    assert len(log) == 1
    start, _, kinds = log[0].partition(": passed over ")
    assert start == "masks of somebody"
    assert sorted(kinds.split(", ")) == ["1 .DS_Store", "1 ._ files", "1 .jpg", "1 .json", "1 .txt", "2 .png"]


@pytest.mark.parametrize("form", ["indexed", "cvat"])
def test_pictures_beside_masks_are_known(tmp_path, capsys, form):
    folder = tmp_path / f"pictures and {form}"
    export_masks({"ada/000": FACE}, CELEBAMASK_HQ, form, folder)
    place = folder / ("ada" if form == "indexed" else "JPEGImages/ada")
    place.mkdir(parents=True, exist_ok=True)
    (place / "000.jpg").write_bytes(b"a photograph")
    same(import_masks(folder, CELEBAMASK_HQ), {"ada/000": FACE})
    assert capsys.readouterr().err == ""
    (place / "001.jpg").write_bytes(b"a photograph")
    same(import_masks(folder, CELEBAMASK_HQ), {"ada/000": FACE})
    assert capsys.readouterr().err == f"pictures and {form}: passed over 1 .jpg\n"


@pytest.mark.parametrize(
    ("forms", "got"),
    [
        (("labelme", "indexed"), r"indexed \(labels\.json\) and labelme \(a\.json\)"),
        (("coco", "labelme"), r"coco \(annotations/instances_default\.json\) and labelme"),
        (("coco", "indexed"), r"coco \(.*\) and indexed"),
    ],
)
def test_masks_of_two_formats_are_refused(tmp_path, forms, got):
    for form in forms:
        for file in (p for p in written(tmp_path / form, form).rglob("*") if p.is_file()):
            to = tmp_path / "x" / file.relative_to(tmp_path / form)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=rf"x: wanted masks of one format, got {got}.*; put the others elsewhere"):
        import_masks(tmp_path / "x", THREE)


def test_two_tasks_of_cvat_are_refused(tmp_path):
    for task in ("one", "two"):
        written(tmp_path / task)
    with pytest.raises(InputError, match=r"cvat masks: wanted one labelmap\.txt, got one/labelmap\.txt, two/labelmap"):
        import_masks(tmp_path, THREE)


# COCO.

BOX = {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 1, 2, 2]}


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([BOX], "got none in 1 of 1 annotations, of which 1 are rectangles"),
        ([BOX | {"segmentation": []}], "got none in 1 of 1 annotations, of which 1 are rectangles"),
        ([BOX | {"segmentation": [[1, 1, 3, 1, 3, 3]]}, BOX], r"annotations\[1\]\.segmentation: .* none in 1 of 2"),
        ([{k: v for k, v in BOX.items() if k != "bbox"}], "none in 1 of 1 annotations, of which 0 are"),
    ],
)
def test_rectangles_are_no_masks(tmp_path, annotations, message):
    with pytest.raises(InputError, match=f"since a rectangle is no mask.*{message}|{message}"):
        import_masks(coco_file(tmp_path / "x.json", None, annotations=annotations), THREE)


@pytest.mark.parametrize("name", ["ada\\000.png", "./ada/000.png", ".\\ada\\000.png"])
def test_names_of_windows(tmp_path, name):
    images = [{"id": 7, "file_name": name, "height": 3, "width": 4}]
    wanted = np.zeros((3, 4), np.uint8)
    wanted[1:3, 1:3] = 2
    file = coco_file(tmp_path / "x.json", [[1, 1, 3, 1, 3, 3, 1, 3]], images=images)
    same(import_masks(file, THREE), {"ada/000": wanted})


@pytest.mark.parametrize("name", ["..\\a.png", "a\\..\\..\\b.png", "C:\\a.png", "\\a.png"])
def test_names_of_windows_that_leave_the_folder(tmp_path, name):
    images = [{"id": 7, "file_name": name, "height": 3, "width": 4}]
    with pytest.raises(InputError, match="file_name: wanted a plain relative path"):
        import_masks(coco_file(tmp_path / "x.json", [[1, 1, 3, 1, 3, 3]], images=images), THREE)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(InputError, match=r"x\.zip: entry: wanted a plain relative path"):
        import_masks(tmp_path / "x.zip", THREE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "../../000.png"}, r"annotations\[0\]\.file_name: wanted a PNG of segments, .* no such file"),
        ({"file_name": 3}, r"file_name: wanted a text, got 3"),
        ({"segments_info": []}, r"000\.png: wanted segments that segments_info lists, got \["),
        ({"segments_info": 3}, "segments_info: wanted a list of objects|wanted an outline"),
        ({"image_id": 4}, "image_id: wanted image_id that the file lists, got 4"),
        ({"segments_info": [{"id": 60001, "category_id": 300}]}, "category_id that the file lists, got 300"),
    ],
)
def test_panoptic_files_that_are_wrong(tmp_path, change, message):
    panoptic(tmp_path, {"ada/000": FACE})
    file = tmp_path / "annotations/panoptic_default.json"
    data = json.loads(file.read_text())
    data["annotations"][0] |= change
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        import_masks(tmp_path, CELEBAMASK_HQ)
    (tmp_path / "annotations/panoptic_default/ada/000.png").write_bytes(png_of(np.zeros((2, 2, 3), np.uint8)))
    with contextlib.suppress(InputError):
        import_masks(tmp_path, CELEBAMASK_HQ)


# labelme.


@pytest.mark.parametrize(
    ("kind", "points", "area"),
    [
        ("circle", [[12, 10], [16, 13]], np.pi * 25),
        ("circle", [[12, 10], [12, 10]], 0),
        ("rectangle", [[8, 6], [18, 14]], 80),
        ("rectangle", [[18, 14], [8, 6]], 80),
        ("rectangle", [[8, 6], [18, 6], [18, 14], [8, 14]], 80),
        ("rotation", [[8, 10], [13, 5], [18, 10], [13, 15]], 50),
        ("oriented_rectangle", [[8, 10], [13, 5], [18, 10], [13, 15]], 50),
        ("quadrilateral", [[8, 6], [18, 6], [18, 14], [8, 14]], 80),
    ],
)
def test_shapes_with_an_area_are_drawn(tmp_path, kind, points, area):
    shapes = [{"label": "hair", "shape_type": kind, "points": points}]
    file = labelme_file(tmp_path / "a.json", shapes, imageHeight=24, imageWidth=32)
    mask = import_masks(file, THREE)["a"]
    assert mask.sum() / 2 == pytest.approx(area, rel=0.12)
    if area:
        y, x = np.nonzero(mask)
        assert (y.mean() + 0.5, x.mean() + 0.5) == pytest.approx((10, 12 if kind == "circle" else 13), abs=0.6)


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points", "cuboid", 3, None, ["polygon"]])
def test_shapes_without_an_area_are_refused_by_name(tmp_path, kind):
    shapes = [{"label": "hair", "shape_type": kind, "points": [[1, 1], [2, 2]]}]
    with pytest.raises(InputError, match=rf"shape_type: wanted a shape with an area: .*, got {re.escape(repr(kind))}"):
        import_masks(labelme_file(tmp_path / "a.json", shapes), THREE)


def test_byte_order_marks_and_capital_endings(tmp_path):
    """In every text of every format, as programs on Windows save it."""
    for form in ("cvat", "labelme", "coco", "indexed"):
        folder = written(tmp_path / form, form)
        for file in [p for p in folder.rglob("*") if p.suffix in (".txt", ".json")]:
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        for file in [p for p in folder.rglob("a.*") if form != "labelme" or p.suffix == ".json"]:
            file.rename(file.with_suffix(file.suffix.upper()))
        same(import_masks(folder, THREE), {"a": SMALL})
