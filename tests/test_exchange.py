"""Mask formats: bit-exact round trips, files as the tools write them, and hostile ones."""

import base64
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from jsplat.captures import label_png
from jsplat.errors import InputError
from jsplat.exchange import FORMATS, export_masks, import_masks, rle
from jsplat.exchange.shapes import polygon
from jsplat.exchange.store import read_files
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, IGNORE_COLOR, LabelSet
from jsplat.labelsets.tables import CELEBAMASK_HQ_OFFICIAL, mapping

THREE = LabelSet(
    ("background", "skin", "hair"), ((9, 9, 9), (255, 255, 255), (255, 255, 255)), ("background", "skin", "hair")
)
SMALL = np.array([[0, 1, 1], [2, IGNORE, 0]], np.uint8)


def written(path: Path, name: str = "cvat", masks: dict | None = None) -> Path:
    export_masks(masks or {"a": SMALL}, THREE, name, path)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def same(got: dict, wanted: dict) -> None:
    assert sorted(got) == sorted(wanted)
    for name, mask in wanted.items():
        np.testing.assert_array_equal(got[name], mask)
        assert got[name].dtype == np.uint8


def label_maps(ids: list[int]) -> st.SearchStrategy[np.ndarray]:
    return stn.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from(ids))


@pytest.mark.parametrize("archive", ["out", "out.zip"])
@pytest.mark.parametrize("name", FORMATS)
@given(maps=st.lists(label_maps([*range(19), IGNORE]), min_size=1, max_size=3))
def test_round_trips_are_exact(tmp_path_factory, name, archive, maps):
    masks = {f"head{i}/00{i}": m for i, m in enumerate(maps)}
    out = tmp_path_factory.mktemp("exchange") / archive
    export_masks(masks, CELEBAMASK_HQ, name, out)
    same(import_masks(out, CELEBAMASK_HQ), masks)
    # Classes go by name: read for another order, every pixel keeps its class.
    other = import_masks(out, CELEBAMASK_HQ_OFFICIAL)
    same(other, {n: mapping(CELEBAMASK_HQ, CELEBAMASK_HQ_OFFICIAL)[m] for n, m in masks.items()})


@pytest.mark.parametrize("name", FORMATS)
def test_colours_that_two_classes_share_do_no_harm(tmp_path, name):
    masks = {"a": SMALL, "b": np.full((1, 1), IGNORE, np.uint8), "c": np.zeros((3, 1), np.uint8)}
    same(import_masks(written(tmp_path / "x", name, masks), THREE), masks)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_masks_give_the_same_archive(tmp_path, name):
    first, second = written(tmp_path / "1.zip", name), written(tmp_path / "2.zip", name)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("masks", "name", "message"),
    [
        ({"a": SMALL}, "xml", "format: wanted one of indexed, cvat, labelme, coco, got 'xml'"),
        ({}, "cvat", "masks: wanted at least one, got none"),
        ({"../a": SMALL}, "cvat", "name: wanted a plain relative path with forward slashes, got '../a'"),
        ({"/a": SMALL}, "coco", "name: wanted a plain relative path"),
        ({"a": SMALL, "A": SMALL}, "coco", "wanted names that differ in more than case"),
        ({"a": np.full((1, 1), 3, np.uint8)}, "coco", r"a: wanted class ids below 3 or 255, got \[3\]"),
        ({"a": np.zeros((0, 3), np.uint8)}, "indexed", "a: wanted 1 to 100,000,000 pixels, got 3x0"),
    ],
)
def test_what_cannot_be_exported(tmp_path, masks, name, message):
    with pytest.raises(InputError, match=message):
        export_masks(masks, THREE, name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "odd"), [("cvat", "a:b"), ("labelme", "__ignore__"), ("coco", "_background_")])
def test_class_names_that_a_format_cannot_hold(tmp_path, name, odd):
    labelset = LabelSet(("background", odd), ((0, 0, 0), (1, 1, 1)), ("background", odd))
    with pytest.raises(InputError, match=f"class names: wanted .*{odd}"):
        export_masks({"a": np.zeros((2, 2), np.uint8)}, labelset, name, tmp_path / "x")


# Indexed PNG.


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_packed_indices_are_read_as_stored(bits):
    """A file made by hand: OpenCV alone would give colours, or grey levels stretched over 0..255."""
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4) & (2**bits - 1)
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(r[:, None], axis=1)[:, -bits:]).tobytes() for r in ids)

    palette = np.arange(3 * 2**bits, dtype=np.uint16).astype(np.uint8).tobytes()
    for color, extra in ((3, chunk(b"PLTE", palette)), (0, b"")):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, bits, color, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        got = label_png.decode(b"\x89PNG\r\n\x1a\n" + head + extra + body, "x.png")
        np.testing.assert_array_equal(got.ids, ids)
        assert (got.palette is None) == (color == 0)
    short = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows[:-1])) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match=r"x\.png: wanted \d+ bytes of pixels, got \d+"):
        label_png.decode(short, "x.png")


def test_other_programs_see_colours_and_ids(tmp_path):
    file = written(tmp_path / "x", "indexed") / "a.png"
    colors = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    table = json.loads((file.parent / "labels.json").read_text())
    assert table["names"] == list(THREE.names)
    assert table["ignore"] == list(IGNORE_COLOR)
    np.testing.assert_array_equal(colors, np.array([*table["colors"], table["ignore"]])[np.minimum(SMALL, 3)])
    assert table["colors"][:2] == [[9, 9, 9], [255, 255, 255]]
    assert len({*map(tuple, table["colors"]), IGNORE_COLOR}) == 4, "two classes shared a colour; now none does"
    same(import_masks(file, THREE), {"a": SMALL})


def test_png_without_names_or_with_strange_ones(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of(SMALL))
    with pytest.raises(InputError, match=r"a\.png: wanted class names in its text or in labels.json, got none"):
        import_masks(tmp_path, THREE)
    (tmp_path / "labels.json").write_text(json.dumps(THREE.to_json()))
    same(import_masks(tmp_path, THREE), {"a": SMALL})
    with pytest.raises(InputError, match=r"a\.png: wanted classes among background, cap, got skin, hair"):
        import_masks(tmp_path, LabelSet(("background", "cap"), ((0, 0, 0),) * 2, ("background", "cap")))
    (tmp_path / "a.png").write_bytes(png_of(SMALL.astype(np.uint16)))
    with pytest.raises(InputError, match=r"a\.png: wanted 8-bit class ids .* got 16 bits a channel, grey"):
        import_masks(tmp_path, THREE)


# CVAT.


def test_cvat_files_are_laid_out_as_documented(tmp_path):
    files = read_files(written(tmp_path / "x.zip")).files
    assert sorted(files) == [
        *("ImageSets/Segmentation/default.txt", "SegmentationClass/a.png", "SegmentationObject/a.png", "labelmap.txt")
    ]
    assert files["ImageSets/Segmentation/default.txt"] == b"a\n"
    lines = files["labelmap.txt"].decode().splitlines()
    assert lines[:3] == ["# label:color_rgb:parts:actions", "background:0,0,0::", "skin:255,255,255::"]
    colors = [line.split(":")[1] for line in lines[1:]]
    assert len(lines) == 5
    assert len(set(colors)) == 4
    objects = label_png.colors_of(label_png.read(files["SegmentationObject/a.png"], "o"), "o")
    np.testing.assert_array_equal(objects[:, 1], [[128, 0, 0], [128, 128, 0]])  # the 1st and 3rd of Pascal VOC's table


def test_cvat_masks_by_line_and_in_a_folder_deeper(tmp_path):
    """Grey masks hold the number of the line; tools put everything below the task's name."""
    root = tmp_path / "task"
    (root / "SegmentationClass").mkdir(parents=True)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nhair:1,2,3::\nbackground:0,0,0::\n")
    (root / "SegmentationClass/b.png").write_bytes(png_of(np.array([[0, 1]], np.uint8)))
    same(import_masks(tmp_path, THREE), {"b": np.array([[2, 0]], np.uint8)})
    (root / "SegmentationClass/b.png").write_bytes(png_of(np.array([[2]], np.uint8)))
    with pytest.raises(InputError, match=r"b\.png: wanted numbers below the 2 lines of labelmap.txt, got 2"):
        import_masks(tmp_path, THREE)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hair:1,2", r"labelmap\.txt: line 1: wanted name:r,g,b:parts:actions, got 'hair:1,2'"),
        ("hair:1,2,256::", "wanted name:r,g,b:parts:actions"),
        ("scarf:1,2,3::", "line 1: wanted one of background, skin, hair, got 'scarf'"),
        ("hair:0,0,0::\nskin:0,0,0::", "line 2: wanted a colour of its own, got 0,0,0 again"),
        ("hair:1,1,1::", r"a\.png: wanted colours that labelmap.txt lists, got"),
    ],
)
def test_cvat_label_maps_that_are_wrong(tmp_path, line, message):
    (written(tmp_path / "x") / "labelmap.txt").write_text(line)
    with pytest.raises(InputError, match=message):
        import_masks(tmp_path / "x", THREE)


def test_cvat_lists_a_picture_without_mask(tmp_path):
    (written(tmp_path / "x") / "ImageSets/Segmentation/default.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="wanted a mask in SegmentationClass/ for every name, got none for 'b'"):
        import_masks(tmp_path / "x", THREE)


# labelme.


def labelme_file(path: Path, shapes: list, **changes) -> Path:
    data = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None}
    path.write_text(json.dumps(data | {"imageHeight": 5, "imageWidth": 6} | changes))
    return path


def test_labelme_polygons_and_masks_in_their_order(tmp_path):
    box = base64.b64encode(png_of(np.array([[1, 0], [1, 255]], np.uint8))).decode()
    shapes = [
        {"label": "skin", "points": [[1, 1], [5, 1], [5, 4], [1, 4]], "shape_type": "polygon"},
        {"label": "hair", "points": [[4.0, 3.0], [5.0, 4.0]], "shape_type": "mask", "mask": box},
        {"label": "_background_", "points": [[1, 1], [2, 2]], "shape_type": "rectangle"},
        {"label": "__ignore__", "points": [[2, 2], [3, 2], [3, 3], [2, 3]]},
    ]
    wanted = np.zeros((5, 6), np.uint8)
    wanted[1:4, 1:5] = 1
    wanted[3, 4] = wanted[4, 4] = wanted[4, 5] = 2
    wanted[1, 1], wanted[2, 2] = 0, IGNORE
    same(import_masks(labelme_file(tmp_path / "a.json", shapes), THREE), {"a": wanted})


MASK = {"label": "hair", "points": [[0, 0], [1, 1]], "shape_type": "mask"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            {"label": "cap"} | {"points": [[0, 0], [1, 1]], "shape_type": "rectangle"},
            r"shapes\[0\].label: wanted one of",
        ),
        (MASK | {"mask": "iVBORw0"}, r"a\.json: shapes\[0\]\.mask: wanted base64"),
        (
            MASK | {"mask": "iVBORw0KGgo="},
            r"shapes\[0\]\.mask: wanted a whole PNG file, got 8 bytes, cut off or damaged",
        ),
        (MASK | {"mask": "\u0800"}, r"a\.json: shapes\[0\]\.mask: wanted base64"),
        (MASK | {"mask": 3}, r"mask: wanted a text, got 3"),
        (
            MASK | {"mask": base64.b64encode(png_of(np.ones((3, 2), np.uint8))).decode()},
            "wanted 2x2 pixels, as the points",
        ),
        (MASK | {"points": [[0, 0], [9, 1]]}, "points: wanted a box inside 6x5"),
        (MASK | {"points": [[0, 0], [1e300, 1]]}, r"wanted two points \[x, y\] near the picture"),
        (MASK | {"points": "ab"}, r"wanted two points \[x, y\]"),
        ({"label": "hair", "points": [[0, 0], [1, 1]]}, r"points: wanted at least 3 points"),
        ({"label": "hair", "points": [[0, 0]], "shape_type": "point"}, "shape_type: wanted a shape with an area"),
        ({"points": []}, "label: wanted a text|points: wanted"),
    ],
)
def test_labelme_shapes_that_are_wrong(tmp_path, shape, message):
    with pytest.raises(InputError, match=message):
        import_masks(labelme_file(tmp_path / "a.json", [shape]), THREE)


def test_labelme_pictures_of_impossible_size(tmp_path):
    with pytest.raises(InputError, match="imageWidth, imageHeight: wanted 1 to 100,000,000 pixels, got 100000x100000"):
        import_masks(labelme_file(tmp_path / "a.json", [], imageHeight=100000, imageWidth=100000), THREE)
    with pytest.raises(InputError, match=r"a\.json: imageHeight: wanted a whole number, got True"):
        import_masks(labelme_file(tmp_path / "a.json", [], imageHeight=True), THREE)


def test_a_polygon_holds_the_pixels_whose_centre_it_holds():
    triangle = polygon([[0, 0], [4, 0], [0, 4]], (4, 4), "t")
    np.testing.assert_array_equal(triangle.sum(1), [3, 2, 1, 0])  # x + y < 4 for centres; those on the edge are outside
    assert polygon([[-9, -9], [99, -9], [99, 99], [-9, 99]], (2, 3), "t").all()
    ring = polygon([[0, 0], [3, 0], [3, 3], [0, 3], [0, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1]], (3, 3), "t")
    np.testing.assert_array_equal(ring, [[1, 1, 1], [1, 0, 1], [1, 1, 1]])


# COCO.


@pytest.mark.parametrize(
    ("mask", "counts", "text"),
    [  # what pycocotools 2.0.11 writes for these masks
        ([[0, 0], [0, 0]], [4], "4"),
        ([[1, 1], [1, 1]], [0, 4], "04"),
        ([[0, 1], [1, 1]], [1, 3], "13"),
    ],
)
def test_run_lengths_of_masks_small_enough_to_count(mask, counts, text):
    mask = np.array(mask, bool)
    assert rle.encode(mask) == counts
    assert rle.compress(counts) == text
    np.testing.assert_array_equal(rle.decode(rle.decompress(text, "x"), mask.shape, "x"), mask)


def test_a_disc_as_pycocotools_writes_it():
    y, x = np.mgrid[:40, :50]
    text = r"of05P16K4M2N2N2O0O2O000O2O00000001N10001N101N2N2N3L5J\8"
    assert rle.compress(rle.encode((y - 17) ** 2 + (x - 30) ** 2 < 150)) == text


@given(stn.arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 60))))
def test_run_lengths_come_back(mask):
    counts = rle.encode(mask)
    assert rle.decompress(rle.compress(counts), "x") == counts
    np.testing.assert_array_equal(rle.decode(counts, mask.shape, "x"), mask)


@given(st.lists(st.integers(0, 10**7), max_size=20))
def test_any_runs_survive_compression(counts):
    assert rle.decompress(rle.compress(counts), "x") == counts


def coco_file(path: Path, segmentation: object, **changes) -> Path:
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 3, "width": 4}],
        "categories": [{"id": 5, "name": "hair"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "segmentation": segmentation}],
    }
    path.write_text(json.dumps(data | changes))
    return path


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [3, 4], "counts": [4, 2, 1, 2, 3]},
        {"size": [3, 4], "counts": rle.compress([4, 2, 1, 2, 3])},
        [[1, 1, 3, 1, 3, 3, 1, 3]],
    ],
)
def test_coco_from_other_tools(tmp_path, segmentation):
    wanted = np.zeros((3, 4), np.uint8)
    wanted[1:3, 1:3] = 2
    same(import_masks(coco_file(tmp_path / "x.json", segmentation), THREE), {"a": wanted})


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            {"size": [3, 4], "counts": [10**12]},
            r"segmentation\.counts: wanted runs >= 0 that add up to 3x4 = 12, got others",
        ),
        ({"size": [3, 4], "counts": [5, 5]}, "add up to 3x4 = 12, got 10"),
        ({"size": [3, 4], "counts": [-1, 13]}, "wanted runs >= 0"),
        ({"size": [3, 4], "counts": [True, 11]}, "wanted runs >= 0"),
        ({"size": [3, 4], "counts": "o" * 99}, "wanted COCO's compressed runs, got 'o' at 13"),
        ({"size": [3, 4], "counts": "4R"}, "compressed runs, got a number that is cut off"),
        ({"size": [3, 4], "counts": "4 "}, "compressed runs, got ' ' at 1"),
        ({"size": [99999, 99999], "counts": []}, r"size: wanted \[3, 4\], as the picture, got \[99999, 99999\]"),
        ([[1, 2, 3]], r"segmentation\[0\]: wanted x, y, x, y"),
        (None, r"annotations\[0\]\.segmentation: wanted an outline"),
    ],
)
def test_coco_segmentations_that_are_wrong(tmp_path, segmentation, message):
    with pytest.raises(InputError, match=message):
        import_masks(coco_file(tmp_path / "x.json", segmentation), THREE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, r"category_id: wanted category_id that the file lists, got 5"),
        ({"categories": [{"id": 5, "name": "cap"}]}, "category_id: wanted one of background, skin, hair, got 'cap'"),
        ({"images": 3}, r"x\.json: images: wanted a list of objects, got int"),
        (
            {"images": [{"id": 7, "file_name": "../../a.jpg", "height": 3, "width": 4}]},
            r"file_name: wanted a plain rel",
        ),
        (
            {"images": [{"id": 7, "file_name": "a", "height": 1 << 20, "width": 1 << 20}]},
            "wanted 1 to 100,000,000 pixels",
        ),
        ({"images": [{"id": 7, "file_name": "a.jpg", "height": 3, "width": 4}] * 2}, "wanted a picture of its own"),
    ],
)
def test_coco_files_that_are_wrong(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        import_masks(coco_file(tmp_path / "x.json", [], **changes), THREE)
