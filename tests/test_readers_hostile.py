"""Damaged and hostile captures: every one ends in one clear error, or is handled right."""

import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import Rig, save

from jsplat.capture import picture_header, read_capture, read_image
from jsplat.errors import InputError
from jsplat.readers import ImportConfig, detect, import_capture
from jsplat.readers.lens import Lens

SMALL = ImportConfig(size=16)


def run(folder: Path, config: ImportConfig = SMALL):
    return import_capture(folder, folder.parent / "out", config)


@pytest.fixture
def made(tmp_path):
    """Writes a layout, and lets its JSON be changed."""

    def make(layout: str, change=None, file: str | None = None, **options) -> Path:
        folder = tmp_path / "7"
        layouts.LAYOUTS[layout](folder, Rig(views=4, **options.pop("rig", {})), **options)
        if change is not None:
            path = folder / (file or "transforms.json")
            data = json.loads(path.read_text())
            change(data)
            path.write_text(json.dumps(data))
        return folder

    return make


# Folders


def test_no_folder_a_file_and_an_archive(tmp_path):
    with pytest.raises(InputError, match=r"nobody: wanted a folder, got nothing there"):
        detect(tmp_path / "nobody")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(InputError, match=r"a.zip: wanted a folder, got a file; unpack archives first"):
        run(tmp_path / "a.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: wanted one of: params.json \(FaceScape .*; at least 3 photographs"):
        detect(tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_photographs_without_pycolmap(tmp_path, monkeypatch):
    for i in range(3):
        save(tmp_path / "in" / f"{i}.jpg", Rig().picture(i))
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    assert detect(tmp_path / "in") == "photographs"
    with pytest.raises(
        InputError, match=r"wanted the package pycolmap, .*pip install 'jsplat\[sfm\]', got none installed"
    ):
        run(tmp_path / "in")


# JSON


def _set(*path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


MIRROR = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()
BAD_JSON = {  # name: (layout, file, change, message)
    "NaN pose": (
        "nerfstudio",
        None,
        _set("frames", 1, "transform_matrix", 0, 3, value=float("nan")),
        r"7/transforms.json: frames\[1\].transform_matrix: wanted a finite 4x4 matrix",
    ),
    "mirrored pose": (
        "nerfstudio",
        None,
        _set("frames", 2, "transform_matrix", value=MIRROR),
        r"frames\[2\].transform_matrix: wanted a rigid transform",
    ),
    "endless pose": (
        "nerfstudio",
        None,
        _set("frames", 2, "transform_matrix", 0, 0, value=1e308),
        r"frames\[2\].transform_matrix: wanted a rigid transform",
    ),
    "a number without end": (
        "nerfstudio",
        None,
        _set("fl_x", value=10**400),
        r"frames\[0\]: fl_x: wanted a finite number",
    ),
    "parent path": (
        "nerfstudio",
        None,
        _set("frames", 0, "file_path", value="../../etc/passwd"),
        r"frames\[0\].file_path: wanted a path inside the folder, got '../../etc/passwd'",
    ),
    "absolute path": (
        "nerfstudio",
        None,
        _set("frames", 0, "mask_path", value="/etc/passwd"),
        r"frames\[0\].mask_path: wanted a path inside the folder, got '/etc/passwd'",
    ),
    "a name too long": (
        "nerfstudio",
        None,
        _set("frames", 0, "file_path", value="a" * 5000),
        r"frames\[0\].file_path: wanted a path inside the folder",
    ),
    "a name with NUL": (
        "nerfstudio",
        None,
        _set("frames", 0, "file_path", value="a\0.png"),
        r"frames\[0\].file_path: wanted a path inside the folder",
    ),
    "the folder itself": (
        "nerfstudio",
        None,
        _set("frames", 0, "file_path", value="."),
        r"frames\[0\].file_path: wanted a path inside the folder",
    ),
    "missing picture": (
        "nerfstudio",
        None,
        _set("frames", 3, "file_path", value="images/77.png"),
        r"frames\[3\].file_path: wanted an image, got no file 77.png",
    ),
    "size mismatch": (
        "nerfstudio",
        None,
        _set("w", value=50),
        r"frames\[0\].file_path: wanted 50x36 pixels as calibrated, got 00.png with 48x36",
    ),
    "half pixels": ("nerfstudio", None, _set("w", value=48.5), r"frames\[0\]: w, h: wanted whole pixels"),
    "unknown model": (
        "nerfstudio",
        None,
        _set("camera_model", value="EQUIRECTANGULAR"),
        r"camera_model: wanted one of OPENCV, .*got 'EQUIRECTANGULAR'",
    ),
    "ambiguous k4": ("nerfstudio", None, _set("k4", value=0.1), r"k4: wanted 0 unless the lens is a fisheye, got 0.1"),
    "wild distortion": (
        "nerfstudio",
        None,
        _set("k1", value=-1e200),
        r"lens: wanted a distortion that can be undone",
    ),
    "no focal length": (
        "nerfstudio",
        None,
        lambda d: d.pop("fl_x"),
        r"frames\[0\]: fl_x: wanted a finite number, got None",
    ),
    "negative focal length": (
        "nerfstudio",
        None,
        _set("fl_x", value=-3),
        r"lens: wanted finite numbers and positive focal",
    ),
    "wide angle": (
        "nerfstudio",
        None,
        lambda d: d.pop("fl_x") and d.update(camera_angle_x=3.2),
        r"camera_angle_x: wanted radians between 0 and pi, got 3.2",
    ),
    "a single view": (
        "nerfstudio",
        None,
        lambda d: d.update(frames=d["frames"][:1]),
        r"wanted at least 2 usable views, got 1",
    ),
    "no view": ("nerfstudio", None, _set("frames", value=[]), r"wanted at least 2 usable views, got 0"),
    "frames of something": (
        "nerfstudio",
        None,
        _set("frames", value={"a": 1}),
        r"7/transforms.json: frames: wanted a list",
    ),
    "a camera that looks away": (
        "nerfstudio",
        None,
        lambda d: d["frames"][1].update(
            transform_matrix=(np.asarray(d["frames"][1]["transform_matrix"]) @ np.diag([-1, 1, -1, 1.0])).tolist()
        ),
        r"frames\[1\].file_path: wanted a camera that looks where the others look",
    ),
    "poses beyond reason": (
        "nerfstudio",
        None,
        _set("frames", 2, "transform_matrix", 0, 3, value=1e200),
        r"7: wanted cameras around one head, got poses beyond float32",
    ),
    "no lens in FaceScape": ("facescape", "params.json", lambda d: d.pop("1_K"), r"7/params.json: 1_K: wanted a"),
    "K with skew": (
        "facescape",
        "params.json",
        _set("1_K", 0, 1, value=3.0),
        r"params.json: 1_K: wanted pixels without skew",
    ),
    "a K that is no K": (
        "facescape",
        "params.json",
        _set("1_K", 2, 0, value=3.0),
        r"1_K: wanted 0 0 1 in the last row",
    ),
    "Rt with NaN": (
        "facescape",
        "params.json",
        _set("0_Rt", 0, 0, value=float("nan")),
        r"0_Rt: wanted a finite 4x4 matrix",
    ),
    "Rt that scales": (
        "facescape",
        "params.json",
        _set("0_Rt", value=(2 * np.eye(4)[:3]).tolist()),
        r"params.json: 0_Rt: wanted a rigid transform",
    ),
    "valid in words": (
        "facescape",
        "params.json",
        _set("2_valid", value="yes"),
        r"2_valid: wanted true or false, got 'yes'",
    ),
    "four coefficients": (
        "facescape",
        "params.json",
        lambda d: d["0_distortion"].pop(),
        r"0_distortion: wanted a finite 5 mat",
    ),
    "all unusable": (
        "facescape",
        "params.json",
        lambda d: d.update({f"{i}_valid": False for i in range(4)}),
        r"7: wanted at least 2 usable views, got 0 \(4 marked as unusable\)",
    ),
    "no cameras in NeRSemble": (
        "nersemble",
        "calibration/camera_params.json",
        _set("world_2_cam", value=[]),
        r"camera_params.json: world_2_cam: wanted an object",
    ),
    "a camera without a pose": (
        "nersemble",
        "calibration/camera_params.json",
        lambda d: d["world_2_cam"].pop("222200037"),
        r"world_2_cam.222200037: wanted a finite 4x4 matrix",
    ),
    "another size": (
        "nersemble",
        "calibration/camera_params.json",
        lambda d: d.pop("width"),
        r"wanted 2200x36 pixels as calibrated, got cam_222200036_00000.jpg with 48x36",
    ),
    "a parent path in VHAP": (
        "vhap",
        None,
        _set("frames", 0, "fg_mask_path", value="../x.png"),
        r"frames\[0\].fg_mask_path: wanted a path inside the folder, got '../x.png'",
    ),
    "mattes for some": (
        "vhap",
        None,
        lambda d: (d.pop("fg_mask_path"), d["frames"][2].pop("fg_mask_path")),
        r"frames\[2\]: wanted fg_mask_path for all frames or none",
    ),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_damaged_json_says_which_field(made, name):
    layout, file, change, message = BAD_JSON[name]
    folder = made(layout, change, file)
    with pytest.raises(InputError, match=message):
        run(folder)
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' + "9" * 5000 + "}", "[" * 100_000])
def test_json_that_is_none(made, text):
    folder = made("facescape")
    (folder / "params.json").write_text(text)
    with pytest.raises(InputError, match=r"params.json: wanted (a )?JSON"):
        run(folder)


def test_sequences_and_moments_that_are_not_there(made):
    folder = made("nersemble")
    with pytest.raises(InputError, match=r"ImportConfig.sequence: wanted one of EXP-1-head, got 'HAIR'"):
        run(folder, ImportConfig(sequence="HAIR"))
    (folder / "sequences" / "GLASSES" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match=r"ImportConfig.sequence: wanted one of EXP-1-head, GLASSES, got None"):
        run(folder)
    with pytest.raises(InputError, match=r"wanted at least 2 usable views, got 0"):
        run(folder, ImportConfig(sequence="EXP-1-head", timestep=5))


def test_a_moment_that_vhap_does_not_have(made):
    with pytest.raises(InputError, match=r"ImportConfig.timestep: wanted below 2, got 2"):
        run(made("vhap"), ImportConfig(timestep=2))


# COLMAP's binary files


def _patch(path: Path, at: int, data: bytes) -> None:
    old = path.read_bytes()
    path.write_bytes(old[:at] + data + old[at + len(data) :])


ENDLESS = struct.pack("<Q", 2**60)
POINTS_AT = 8 + 64 + len("sub/00.png") + 1  # the first image's number of observed points
BAD_COLMAP = {  # name: (file, what happens to it, message)
    "endless cameras": (
        "cameras.bin",
        lambda p: _patch(p, 0, ENDLESS),
        r"cameras.bin: .*a declared count of 1152921504606846976",
    ),
    "endless images": (
        "images.bin",
        lambda p: _patch(p, 0, ENDLESS),
        r"images.bin: .*a declared count of 1152921504606846976",
    ),
    "endless points": (
        "images.bin",
        lambda p: _patch(p, POINTS_AT, ENDLESS),
        r"images.bin: .*a declared count of 11529215",
    ),
    "cut cameras": (
        "cameras.bin",
        lambda p: p.write_bytes(p.read_bytes()[:-8]),
        r"cameras.bin: wanted 64 more bytes at 32, got",
    ),
    "cut images": ("images.bin", lambda p: p.write_bytes(p.read_bytes()[:-30]), r"images.bin: wanted "),
    "empty": ("images.bin", lambda p: p.write_bytes(b""), r"images.bin: wanted 8 more bytes at 0"),
    "gone": ("images.bin", lambda p: p.unlink(), r"images.bin: wanted a readable file, got No such file"),
    "FOV": (
        "cameras.bin",
        lambda p: _patch(p, 12, struct.pack("<i", 7)),
        r"camera 3: wanted a camera model among .*, got FOV",
    ),
    "a model of the future": (
        "cameras.bin",
        lambda p: _patch(p, 12, struct.pack("<i", 99)),
        r"camera 3: wanted a camera model among .*, got number 99",
    ),
    "no size": (
        "cameras.bin",
        lambda p: _patch(p, 16, ENDLESS),
        r"camera 3: wanted a picture size, got 1152921504606846976x36",
    ),
    "NaN focal length": (
        "cameras.bin",
        lambda p: _patch(p, 32, struct.pack("<d", float("nan"))),
        r"camera 3: wanted finite numbers and positive focal lengths",
    ),
    "no rotation": (
        "images.bin",
        lambda p: _patch(p, 12, bytes(32)),
        r"image 1: wanted a unit quaternion and a finite transl",
    ),
    "NaN translation": (
        "images.bin",
        lambda p: _patch(p, 44, struct.pack("<d", float("inf"))),
        r"image 1: wanted a unit quaternion and a finite translation",
    ),
    "unknown camera": (
        "images.bin",
        lambda p: _patch(p, 68, struct.pack("<I", 9)),
        r"sub/00.png: wanted a camera of 0/cameras",
    ),
    "parent path": (
        "images.bin",
        lambda p: _patch(p, 72, b"../../a.pn"),
        r"images.bin: ../../a.pn: wanted a path inside the fol",
    ),
    "absolute path": (
        "images.bin",
        lambda p: _patch(p, 72, b"/etc/motd0"),
        r"/etc/motd0: wanted a path inside the folder",
    ),
    "no text": ("images.bin", lambda p: _patch(p, 72, b"\xff\xfe"), r"images.bin: wanted a name in UTF-8"),
}


@pytest.mark.parametrize("name", BAD_COLMAP)
def test_damaged_colmap_models(made, name):
    file, damage, message = BAD_COLMAP[name]
    folder = made("colmap")
    damage(folder / "sparse" / "0" / file)
    with pytest.raises(InputError, match=message):
        run(folder)


BAD_TEXT = {
    "unknown model": (
        "cameras.txt",
        "3 FOV 48 36 1 1 1 1 1\n",
        r"cameras.txt: camera 3: wanted a camera model among .*got FOV",
    ),
    "too few": ("cameras.txt", "3 OPENCV 48 36 1 1 1\n", r"camera 3: wanted 8 parameters of OPENCV, got 3"),
    "no words": ("cameras.txt", "3 OPENCV\n", r"cameras.txt: wanted CAMERA_ID MODEL WIDTH HEIGHT PARAMS"),
    "words": ("cameras.txt", "3 PINHOLE 48 36 a b c d\n", r"cameras.txt: camera 3: wanted numbers, got a b c d"),
    "short image": ("images.txt", "1 1 0 0 0\n\n", r"images.txt: wanted IMAGE_ID QW"),
    "binary": ("images.txt", b"\xff\xfe\x00", r"images.txt: wanted text in UTF-8"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_damaged_colmap_text(made, name):
    file, text, message = BAD_TEXT[name]
    folder = made("colmap", text=True)
    (folder / "sparse" / "0" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        run(folder)


def test_two_models_of_colmap(made):
    folder = made("colmap")
    shutil.copytree(folder / "sparse" / "0", folder / "sparse" / "1")
    with pytest.raises(InputError, match=r"7/sparse: wanted one model \(move the others away\), got 0, 1"):
        run(folder)


# Pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, color: int, rows: bytes, *extra: bytes, bits: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(path: Path, orientation: int | None = None, order: str = "<") -> bytes:
    """A file's JPEG with an Exif orientation in front."""
    data = path.read_bytes()
    if orientation is None:
        return data
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]


def cmyk(data: bytes) -> bytes:
    """A JPEG whose frame header declares four components."""
    at = data.index(b"\xff\xc0")
    length = 8 + 3 * 4
    head = (
        b"\xff\xc0"
        + struct.pack(">H", length)
        + data[at + 4 : at + 9]
        + b"\x04"
        + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))
    )
    old = struct.unpack_from(">H", data, at + 2)[0]
    return data[:at] + head + data[at + 2 + old :]


PALETTE = chunk(b"PLTE", bytes(range(30)))
BAD_PICTURES = {  # name: (bytes from the good JPEG, message)
    "16 bits": (lambda p: png(48, 36, 2, b"", bits=16), r"1: wanted a readable image, got 1.jpg, .*damaged"),
    "16 bits, whole": (
        lambda p: png(48, 36, 0, (b"\0" + bytes(96)) * 36, bits=16),
        r"1: wanted an 8-bit picture, got 1.jpg, uint16 \(36, 48\)",
    ),
    "a bomb": (lambda p: png(20_000, 20_000, 2, b""), r"1: wanted at most 100,000,000 pixels, got 1.jpg, 20000x20000"),
    "a larger bomb": (lambda p: png(2**31 - 1, 2**31 - 1, 2, b""), r"1: wanted at most 100,000,000 pixels"),
    "an endless chunk": (
        lambda p: png(48, 36, 2, b"", struct.pack(">I", 2**31 - 9) + b"IDAT"),
        r"1: wanted a readable image, got 1.jpg, 73 bytes, cut off",
    ),
    "a JPEG bomb": (
        lambda p: jpeg(p).replace(struct.pack(">HH", 36, 48), struct.pack(">HH", 65500, 65500)),
        r"1: wanted at most 100,000,000 pixels, got 1.jpg, 65500x65500",
    ),
    "truncated": (lambda p: jpeg(p)[:-40], r"1: wanted a readable image, got 1.jpg, .*cut off"),
    "CMYK": (lambda p: cmyk(jpeg(p)), r"1: wanted an RGB or grey picture, got 1.jpg, a CMYK JPEG"),
    "no picture": (lambda p: b"GIF89a", r"1: wanted a readable image, got 1.jpg, 6 bytes, neither PNG nor JPEG"),
    "mirrored": (lambda p: jpeg(p, 2), r"1: wanted a picture that is not mirrored, got Exif orientation 2"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures_that_cannot_be_used(made, name):
    make, message = BAD_PICTURES[name]
    folder = made("facescape")
    path = folder / "1.jpg"
    path.write_bytes(make(path))
    with pytest.raises(InputError, match=message) as caught:
        run(folder)
    assert str(caught.value).startswith("7/params.json: ")


def test_a_palette_picture_has_its_colours(tmp_path):
    rows = b"".join(b"\0" + bytes([1, 2, 9]) for _ in range(2))
    (tmp_path / "a.png").write_bytes(png(3, 2, 3, rows, PALETTE))
    assert read_image(tmp_path / "a.png", "a").tolist() == [[[3, 4, 5], [6, 7, 8], [27, 28, 29]]] * 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_rotation_is_not_applied_but_tells_where_up_is(made, order):
    """Calibrations are made on stored pixels; a tag that says "turn clockwise" turns picture and camera together."""
    folder = made("facescape", rig={"roll": 90.0})
    for i in range(4):
        path = folder / f"{i}.jpg"
        path.write_bytes(jpeg(path, 6, order))
        assert picture_header(path.read_bytes()) == (48, 36, 3, 6)
    capture = run(folder, ImportConfig(size=48))
    assert capture.images.shape[1] > capture.images.shape[2]
    assert [v["quarter_turns"] for v in json.loads((folder.parent / "out" / "import.json").read_text())["views"]] == [
        1
    ] * 3
    up = np.asarray(capture.cameras.camera_from_world)[:, 1, 1]
    assert np.all(up < -0.9)


def test_intrinsics_of_turned_pixels_are_refused(made):
    folder = made("facescape")
    path = folder / "params.json"
    data = json.loads(path.read_text())
    data |= {"2_width": 36, "2_height": 48}
    path.write_text(json.dumps(data))
    picture = folder / "2.jpg"
    picture.write_bytes(jpeg(picture, 6))
    message = (
        r"2: wanted 36x48 pixels as calibrated, got 2.jpg with 48x36, which its Exif tag turns; calibrate on stored"
    )
    with pytest.raises(InputError, match=message):
        run(folder)


@pytest.mark.parametrize(
    "tail", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"XX" * 20, b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01"]
)
def test_a_broken_exif_tag_says_nothing(made, tail):
    folder = made("facescape")
    data = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(
        data[:2] + b"\xff\xe1" + struct.pack(">H", len(tail) + 8) + b"Exif\0\0" + tail + data[2:]
    )
    assert run(folder).images.shape[0] == 3


def test_a_photograph_may_carry_more_behind_its_end(made):
    """Phones append previews and depth."""
    folder = made("facescape")
    path = folder / "0.jpg"
    path.write_bytes(path.read_bytes() + b"SEFT" * 9)
    assert run(folder).images.shape[0] == 3


def test_our_own_format_meets_the_same_pictures(made):
    folder = made("nerfstudio", rig={})
    run(folder)
    path = folder.parent / "out" / "images" / "001.png"
    for data, message in (
        (png(20_000, 20_000, 2, b""), r"frames\[1\].file_path: wanted at most 100,000,000 pixels"),
        (png(2**31 - 1, 2**31 - 1, 2, b""), r"frames\[1\].file_path: wanted at most 100,000,000 pixels"),
        (b"II*\0", r"frames\[1\].file_path: wanted a readable image, got 001.png, 4 bytes, neither PNG nor JPEG"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_capture(folder.parent / "out")


@pytest.mark.parametrize("name", ["../../x", "/x", "", ".", "a/b", "a\\b", "a\0"])
def test_an_identity_that_is_a_path(made, name):
    """Results are written under the identity's name."""
    out = made("nerfstudio").parent / "out"
    run(out.parent / "7")
    path = out / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": name}))
    with pytest.raises(InputError, match=r"out/transforms.json: identity: wanted a name without slashes"):
        read_capture(out)


def test_the_folder_one_stands_in_has_a_name(made, monkeypatch):
    monkeypatch.chdir(made("nerfstudio"))
    assert import_capture(Path("."), Path("..", "out"), SMALL).identity == "7"


def test_masks_and_mattes_of_another_size(made):
    def change(data):
        for frame in data["frames"]:
            frame["mask_path"] = "m.png"

    folder = made("nerfstudio", change)
    save(folder / "m.png", np.full((36, 47, 1), 255, np.uint8))
    with pytest.raises(InputError, match=r"file_path: wanted one 8-bit channel of 48x36 pixels, got m.png"):
        run(folder)
    shutil.rmtree(folder)
    folder = made("vhap")
    save(folder / "fg_masks" / "00000_01.png", np.full((35, 48, 1), 255, np.uint8))
    with pytest.raises(
        InputError, match=r"frames\[1\].file_path: wanted an 8-bit matte of 48x36 pixels, got 00000_01.png"
    ):
        run(folder)


# Lenses and cameras that describe nothing


@pytest.mark.parametrize("k1", [-0.5, 0.5])
def test_a_lens_is_not_followed_past_its_fold(k1):
    lens = Lens(np.asarray([[50.0, 0, 50], [0, 50.0, 50], [0, 0, 1]]), 100, 100, (k1,))
    r, seen = lens.radii(np.radians(80))
    assert np.all(np.diff(seen) > 0)
    fold = np.sqrt(1 / (3 * 0.5)) if k1 < 0 else np.tan(np.radians(80))
    assert fold * 0.99 < r[-1] <= fold * (1 + 1e-9)


def test_cameras_all_around_name_no_front(tmp_path):
    rig = Rig(views=4)
    layouts.nerfstudio(tmp_path / "in", rig)
    path = tmp_path / "in" / "transforms.json"
    data = json.loads(path.read_text())
    for i, frame in enumerate(data["frames"]):
        a = np.pi / 2 * i
        frame["transform_matrix"] = [
            [np.cos(a), 0, np.sin(a), np.sin(a)],
            [0, 1, 0, 0],
            [-np.sin(a), 0, np.cos(a), np.cos(a)],
            [0, 0, 0, 1],
        ]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"ImportConfig.front: wanted the file name of a photograph from the front"):
        run(tmp_path / "in")
    assert np.allclose(
        run(tmp_path / "in", ImportConfig(size=16, front="02.png")).yaw[[1, 2, 3]], [-90, 0, 90], atol=1e-3
    )


@pytest.mark.parametrize(
    "bad", [{"size": 3}, {"field": 0.0}, {"distance": 0.0}, {"background": (0, 0, 300)}, {"timestep": -1}]
)
def test_settings_out_of_range(bad):
    with pytest.raises(InputError, match=f"ImportConfig.{next(iter(bad))}: wanted"):
        ImportConfig(**bad)
