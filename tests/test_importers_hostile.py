"""Damaged and hostile captures: every one ends in one clear error, or is handled right."""

import json
import zipfile
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import SMALL, Rig, run, save

from jsplat.captures.capture import read_capture
from jsplat.captures.importers import ImportConfig, detect, import_capture
from jsplat.captures.importers.lens import Lens
from jsplat.errors import InputError

# Folders


def test_no_folder_a_file_and_an_archive(tmp_path):
    with pytest.raises(InputError, match=r"nobody: wanted a folder or a video, got nothing there"):
        detect(tmp_path / "nobody")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(
        InputError, match=r"a.zip: wanted a folder, or a video \(.*\), got a file; unpack an archive first"
    ):
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
        InputError, match=r"wanted the package pycolmap, .*, got none installed; `pip install 'jsplat\[sfm\]'`"
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
        r"frames\[0\].file_path: wanted a path inside the folder or .*, got '../../etc/passwd'; `--set capture.root=",
    ),
    "absolute path": (
        "nerfstudio",
        None,
        _set("frames", 0, "mask_path", value="/etc/passwd"),
        r"frames\[0\].mask_path: wanted a path inside the folder or .*, got '/etc/passwd'; `--set capture.root=",
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
    "missing pictures": (
        "nerfstudio",
        None,
        lambda d: [d["frames"][i].update(file_path=f"images/7{i}.png") for i in (2, 3)],
        r"frames\[2\].file_path: wanted an image, got no file 72.png \(2 of 4 listed .*`--set capture.max_missing=0.5`",
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
        r"7: wanted cameras around one head, got poses too large for float32",
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
        _set("frames", 0, "fg_mask_path", value="../../x.png"),
        r"frames\[0\].fg_mask_path: wanted a path inside the folder or .*, got '../../x.png'",
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
    with pytest.raises(InputError, match=r"--set capture.sequence: wanted one of EXP-1-head, got 'HAIR'"):
        run(folder, ImportConfig(sequence="HAIR"))
    (folder / "sequences" / "GLASSES" / "images").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"--set capture.sequence: wanted one of EXP-1-head, GLASSES, got none; `--set"
    ):
        run(folder)
    with pytest.raises(InputError, match=r"wanted an image, got no file cam_222200036\* \(4 of 4 listed"):
        run(folder, ImportConfig(sequence="EXP-1-head", timestep=5))


def test_a_moment_that_vhap_does_not_have(made):
    with pytest.raises(InputError, match=r"--set capture.timestep: wanted 0 to 1, as there are 2 moments, got 2"):
        run(made("vhap"), ImportConfig(timestep=2))


# Names and settings


@pytest.mark.parametrize("name", ["../../x", "/x", "", ".", "a/b", "a\\b", "a\0"])
def test_an_identity_that_is_a_path(made, name):
    """Results are written under the identity's name."""
    out = made("nerfstudio").parent / "out"
    run(out.parent / "7")
    path = out / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": name}))
    with pytest.raises(InputError, match=r"out/transforms.json: identity: wanted a name without slashes"):
        read_capture(out)


def test_the_photographs_are_not_replaced_by_the_result(made):
    folder = made("nerfstudio")
    for out in (folder, folder.parent, folder / ".." / "7"):
        with pytest.raises(InputError, match=r"wanted a new name, got a folder with files in it"):
            import_capture(folder, out, SMALL)
    assert (folder / "transforms.json").is_file()
    assert import_capture(folder, folder / "out", SMALL).images.shape[0] == 4


def test_the_folder_one_stands_in_has_a_name(made, monkeypatch):
    monkeypatch.chdir(made("nerfstudio"))
    assert import_capture(Path("."), Path("..", "out"), SMALL).identity == "7"


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
    with pytest.raises(InputError, match=r"wanted a photograph from the front, .*; `--set capture.front=FILE`"):
        run(tmp_path / "in")
    assert np.allclose(run(tmp_path / "in", ImportConfig(front="02.png"), 16).yaw[[1, 2, 3]], [-90, 0, 90], atol=1e-3)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_ray_angle": 0.0},
        {"distance": 0.0},
        {"background": (0, 0, 300)},
        {"timestep": -1},
        {"max_missing": 1.5},
    ],
)
def test_settings_out_of_range(bad):
    with pytest.raises(InputError, match=f"ImportConfig.{next(iter(bad))}: wanted"):
        ImportConfig(**bad)
