"""Nothing of a source is left out without a word: missing pictures, masks under other names, files passed over."""

import json
import shutil

import layouts
import numpy as np
import pytest
from layouts import SMALL, Rig, run, save

from jsplat.captures.importers import ImportConfig, import_capture, read_source
from jsplat.captures.importers.account import log_files
from jsplat.captures.importers.photographs import _pictures
from jsplat.errors import InputError
from jsplat.files import foreign

MASK = np.full((36, 48, 1), 255, np.uint8)


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(foreign, "_logged", set())


# Layout -> (its first picture, the field that lists it)
PICTURES = {
    "facescape": ("0.jpg", r"7/params.json: 0"),
    "nersemble": ("sequences/EXP-1-head/images/cam_222200036_00000.jpg", r"world_2_cam.222200036"),
    "vhap": ("images/00000_00.png", r"frames\[0\].file_path"),
    "nerfstudio": ("images/00.png", r"frames\[0\].file_path"),
    "colmap": ("images/sub/00.png", r"0/images.bin: sub/00.png"),
}


@pytest.mark.parametrize("layout", PICTURES)
def test_a_missing_picture_is_left_out_and_named(made, capsys, layout):
    folder, (name, field), lenient = made(layout), PICTURES[layout], ImportConfig(max_missing=0.5)
    whole = len(read_source(folder, lenient).photos)
    (folder / name).unlink()
    source = read_source(folder, lenient)
    assert len(source.photos) == whole - 1
    named = "cam_222200036*" if layout == "nersemble" else name.split("/")[-1]
    assert [missing for _, missing in source.missing] == [named]
    log_files(folder, source)
    assert f"7: missing and left out: 1 of {whole} listed pictures: {named}\n" in capsys.readouterr().err
    with pytest.raises(InputError, match=rf"{field}: wanted an image, got no file .*\(1 of {whole} listed pictures"):
        read_source(folder, ImportConfig(max_missing=0.0))


def test_missing_pictures_in_the_record(made):
    folder = made("nerfstudio", lambda data: [data.pop(key) for key in ("w", "h")])
    (folder / "images" / "01.png").unlink()
    run(folder, ImportConfig(max_missing=0.25), 16)
    record = json.loads((folder.parent / "out" / "import.json").read_text())
    assert record["missing"] == record["dropped"] == ["01.png"]
    assert len(record["views"]) == 3
    shutil.rmtree(folder / "images")
    with pytest.raises(InputError, match=r"usable views, got 0 \(0 marked as unusable, 4 missing, as 00.png is\)"):
        read_source(folder, ImportConfig(max_missing=1.0))


# Paths that lead elsewhere


def elsewhere(folder, name):
    """A nerfstudio capture whose pictures lie where `name`, with the number of the view, says."""
    rig = Rig(views=3)
    layouts.nerfstudio(folder, rig)
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    for i, frame in enumerate(data["frames"]):
        frame["file_path"] = name.format(f"{i:02d}.png")
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("absolute", [False, True])
def test_pictures_beside_the_folder_are_read(tmp_path, capsys, absolute):
    elsewhere(tmp_path / "a" / "union", f"{tmp_path if absolute else '..'}{'/a' if absolute else ''}/other/images/{{}}")
    (tmp_path / "a" / "union" / "images").rename(tmp_path / "a" / "images")
    (tmp_path / "a" / "other").mkdir()
    (tmp_path / "a" / "images").rename(tmp_path / "a" / "other" / "images")
    import_capture(tmp_path / "a" / "union", tmp_path / "out", SMALL)
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert [view["source"] for view in record["views"]] == [f"../other/images/{i:02d}.png" for i in range(3)]
    assert "union: pictures are read from outside the folder: ../other/images\n" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"wanted a new name, got a folder with files in it; move"):
        import_capture(tmp_path / "a" / "union", tmp_path / "a" / "other", SMALL)


def test_pictures_elsewhere_need_a_setting(tmp_path):
    elsewhere(tmp_path / "a" / "b" / "in", "../../images/{}")
    (tmp_path / "a" / "b" / "in" / "images").rename(tmp_path / "a" / "images")
    with pytest.raises(
        InputError, match=r"file_path: wanted a path inside the folder or .*/a/b, got .*; `--set capture.root="
    ):
        read_source(tmp_path / "a" / "b" / "in", SMALL)
    assert len(read_source(tmp_path / "a" / "b" / "in", ImportConfig(root=str(tmp_path / "a"))).photos) == 3


# Names and text of other systems


def test_backslashes_and_marks_of_windows(made, tmp_path):
    def windows(data):
        for frame in data["frames"]:
            frame["file_path"] = frame["file_path"].replace("images/", "images\\")

    folder = made("nerfstudio", windows)
    path = folder / "transforms.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_source(folder, SMALL).photos) == 4
    layouts.colmap(tmp_path / "c", Rig(views=4), text=True)
    for name in ("cameras.txt", "images.txt"):
        path = tmp_path / "c" / "sparse" / "0" / name
        path.write_bytes(path.read_text().replace("sub/", "sub\\").replace("\n", "\r\n").encode("utf-8-sig"))
    assert len(read_source(tmp_path / "c", SMALL).photos) == 4


def test_files_whose_names_hold_a_path_of_windows(made):
    """As some programs unpack archives made on Windows."""
    folder = made(
        "nerfstudio", lambda data: [f.update(file_path=f["file_path"][2:].replace("/", "\\")) for f in data["frames"]]
    )
    for path in sorted((folder / "images").iterdir()):
        path.rename(folder / f"images\\{path.name}")
    assert len(read_source(folder, SMALL).photos) == 4


# Masks


@pytest.mark.parametrize(
    "name", ["masks/sub/{}.png.png", "masks/sub/{}.png", "mask/sub/{}_mask.png", "images/sub/{}_mask.png"]
)
def test_masks_under_their_common_names(made, capsys, name):
    folder = made("colmap")
    for i in range(3):
        save(folder / name.format(f"{i:02d}"), MASK)
    source = read_source(folder, SMALL)
    used = [folder / name.format(f"{i:02d}") for i in range(3)]
    assert [photo.mask for photo in source.photos] == [*used, None]
    log_files(folder, source)
    assert "7: masks of 3 of 4 pictures, in which 0 says nothing: 00" in capsys.readouterr().err


def test_colmaps_own_masks_come_first(made):
    folder = made("colmap")
    save(folder / "masks/sub/00.png.png", MASK)
    save(folder / "masks/sub/00.png", MASK)
    source = read_source(folder, SMALL)
    assert source.photos[0].mask == folder / "masks/sub/00.png.png"
    assert log_files(folder, source)[".png"] == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("images/dynamic_mask_00.png", "dynamic_mask_*.png"),
        ("masks/00.png", ".png in masks"),
        ("images/00.mask.png", "*.mask.png"),
        ("images/00_mask.png", "*_mask.png"),
    ],
)
def test_masks_that_a_list_does_not_name_are_told(made, capsys, name, kind):
    """instant-ngp's dynamic masks mean the opposite; nerfstudio takes only those that are listed."""
    folder = made("nerfstudio")
    save(folder / name, MASK)
    source = read_source(folder, SMALL)
    assert all(photo.mask is None for photo in source.photos)
    assert log_files(folder, source) == {kind: 1}
    assert f"7: passed over 1 {kind}\n" in capsys.readouterr().err


def test_a_grey_mask_in_colours_is_read(made):
    folder = made("colmap")
    half = np.where(np.arange(48)[None, :, None] < 24, np.uint8(0), MASK)
    for i in range(4):
        save(folder / f"masks/sub/{i:02d}.png", np.repeat(half, 3, -1))
    valid = run(folder).valid
    assert valid is not None
    assert 0.3 < valid.mean() < 0.7


# Files passed over


def test_every_file_is_accounted_for(made, capsys):
    folder = made("nerfstudio")
    for name in ("._transforms.json", ".DS_Store", "points.ply", "images/._00.png", "images/notes.TXT", "old/1.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0")
    for name in (".git", "__MACOSX"):
        (folder / name).mkdir()
        (folder / name / "x").write_bytes(b"\0")
    kinds = {
        "._ files": 2,
        ".DS_Store": 1,
        ".ply": 1,
        ".txt": 1,
        ".jpg in old": 1,
        "folder .git": 1,
        "folder __MACOSX": 1,
    }
    source = read_source(folder, SMALL)
    assert log_files(folder, source) == kinds
    assert log_files(folder, source) == kinds
    assert capsys.readouterr().err.count("passed over 2 ._ files, ") == 1
    run(folder)
    assert json.loads((folder.parent / "out" / "import.json").read_text())["passed_over"] == kinds


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_what_is_used_is_not_passed_over(made, layout):
    folder = made(layout)
    unread = {"nersemble": {".jpg": 4}, "vhap": {".png": 8}, "colmap": {}}
    want = unread.get(layout, {})
    assert log_files(folder, read_source(folder, SMALL)) == want


def test_photographs_are_neither_litter_nor_masks(tmp_path):
    names = ("0.jpg", "1.jpg", "2_mask.jpg", "mask_of_zorro.jpg")
    for name in (*names, "._0.jpg", "0_mask.png", "dynamic_mask_1.png", "1.mask.png"):
        (tmp_path / name).write_bytes(b"\0")
    assert [p.name for p in _pictures(tmp_path)] == sorted(names)
