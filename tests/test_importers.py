"""Every layout, as its documentation describes it: cameras, lenses, pictures, and the frame of the head."""

import json
import sys

import cv2
import layouts
import numpy as np
import pytest
from close import assert_close
from layouts import PARAMETERS, FakeColmap, Rig, save

from jsplat.captures.capture import read_capture
from jsplat.captures.importers import ImportConfig, detect, import_capture, read_source
from jsplat.captures.importers.lens import Lens
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE

BROWN = (-0.12, 0.03, 0.002, -0.003)
EXACT = (1e-6, "two projections in float64; coordinates are some hundred pixels")
REPROJECTED = (0.01, "float32 cameras, about 2e-4 pixels; a missed half pixel, wrong sign or order shows as 0.1")


def rig_of(layout: str, **changes) -> Rig:
    lens = {"gauge": 1.0} if layout in ("nersemble", "vhap") else {}
    lens |= {} if layout in ("nersemble", "vhap") else {"distortion": BROWN}
    return Rig(**(lens | changes))


def projected(camera_from_world: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rays at depth 1."""
    seen = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    return seen[:, :2] / seen[:, 2:]


def head_points(rig: Rig, record: dict) -> np.ndarray:
    """The rig's points in the imported head frame, by what import.json says."""
    way = record["head_from_source"]
    return way["metres_per_unit"] * (rig.points - way["center"]) @ np.asarray(way["rotation"]).T


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_the_cameras_of_a_layout_project_known_points_where_they_are(tmp_path, layout):
    rig = rig_of(layout)
    layouts.LAYOUTS[layout](tmp_path / "7", rig)
    assert detect(tmp_path / "7") == layout
    source = read_source(tmp_path / "7", ImportConfig())
    assert source.layout == layout
    assert len(source.photos) == rig.views - (layout == "facescape")
    for i, photo in enumerate(source.photos):
        got = photo.lens.project(projected(photo.camera_from_world, rig.points))
        assert_close(got, rig.pixels(i), *EXACT)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", PARAMETERS)
def test_all_undistortable_models_of_colmap(tmp_path, model, text):
    square = model.startswith(("SIMPLE", "RADIAL"))
    rig = Rig(distortion=PARAMETERS[model], fisheye=model.endswith("FISHEYE"), square=square)
    layouts.colmap(tmp_path / "a", rig, model=model, text=text)
    for i, photo in enumerate(read_source(tmp_path / "a", ImportConfig()).photos):
        assert_close(photo.lens.project(projected(photo.camera_from_world, rig.points)), rig.pixels(i), *EXACT)


@pytest.mark.parametrize("model", PARAMETERS)
def test_a_ray_comes_back_through_every_lens(model):
    rig = Rig(distortion=PARAMETERS[model], fisheye=model.endswith("FISHEYE"))
    lens = Lens(rig.k, rig.width, rig.height, rig.distortion, rig.fisheye)
    rays = np.random.default_rng(0).uniform(-0.4, 0.4, (200, 2))
    assert_close(lens.rays(lens.project(rays), np.radians(50)), rays, 1e-7, "Newton's method stops below 1e-7")


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("roll", [0.0, 91.0])
def test_imported_cameras_see_what_the_photographs_saw(tmp_path, layout, roll):
    """From the photograph's pixel through undistortion, turning and resizing, against the imported camera."""
    rig = rig_of(layout, roll=roll)
    layouts.LAYOUTS[layout](tmp_path / "7", rig)
    config = ImportConfig(up="left" if roll else "exif")
    import_capture(tmp_path / "7", tmp_path / "out", config, 32)
    capture, source = read_capture(tmp_path / "out"), read_source(tmp_path / "7", config)
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    points, intrinsics = head_points(rig, record), np.asarray(capture.cameras.intrinsics[0], np.float64)
    for i, photo in enumerate(source.photos):
        turns = record["views"][i]["quarter_turns"]
        assert turns == (1 if roll else 0)
        rays = photo.lens.rays(rig.pixels(i), np.radians(50))
        rays = np.stack([-rays[:, 1], rays[:, 0]], -1) if turns else rays
        want = rays * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
        pose = np.asarray(capture.cameras.camera_from_world[i], np.float64)
        got = projected(pose, points) * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
        assert_close(got, want, *REPROJECTED)


@pytest.mark.parametrize(
    ("lens", "size"), [({}, 160), ({}, 57), ({"distortion": BROWN}, 160), ({"fisheye": True}, 111)]
)
def test_a_spot_in_the_photograph_lies_where_the_imported_camera_says(tmp_path, lens, size):
    """Resizing and undistortion of pixels agree with those of the lens, half pixels included."""
    rig = Rig(width=640, height=480, views=2, **lens)
    layouts.nerfstudio(tmp_path / "in", rig)
    for i in range(rig.views):
        y, x = np.mgrid[: rig.height, : rig.width] + 0.5
        u, v = rig.pixels(i)[0]
        spot = 200 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 10.0**2))
        save(tmp_path / "in" / "images" / f"{i:02d}.png", np.repeat(np.round(spot)[..., None], 3, -1).astype(np.uint8))
    capture = import_capture(tmp_path / "in", tmp_path / "out", ImportConfig(), size)
    points = head_points(rig, json.loads((tmp_path / "out" / "import.json").read_text()))
    intrinsics = np.asarray(capture.cameras.intrinsics[0], np.float64)
    for i, image in enumerate(capture.images):
        ray = projected(np.asarray(capture.cameras.camera_from_world[i], np.float64), points[:1])[0]
        want = ray * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
        weight = np.where(capture.valid[i] if capture.valid is not None else True, image[..., 0].astype(np.float64), 0)
        y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
        got = np.asarray([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert_close(
            got, want, 0.05, "OpenCV resamples at 1/32 pixel, grey levels are whole; a missed half pixel is 0.4"
        )


def test_a_plain_lens_is_resized_by_the_half_pixel_rule(tmp_path):
    """A corner at pixel edge 24 of 48 lies at edge 8 of 16, and the principal point scales without an offset."""
    rig = Rig(square=True)
    layouts.nerfstudio(tmp_path / "in", rig)
    for i in range(rig.views):
        corner = np.zeros((36, 48, 3), np.uint8)
        corner[18:, 24:] = 240
        save(tmp_path / "in" / "images" / f"{i:02d}.png", corner)
    capture = import_capture(tmp_path / "in", tmp_path / "out", ImportConfig(), 16)
    want = np.zeros((12, 16), np.uint8)
    want[6:, 8:] = 240
    assert np.array_equal(capture.images[..., 0], np.repeat(want[None], rig.views, 0))
    assert capture.valid is None
    scaled = rig.k / [[3], [3], [1]]
    assert_close(capture.cameras.intrinsics[0], scaled, 1e-5, "float32 intrinsics of some tens of pixels")


def test_what_a_lens_does_not_show_is_invalid(tmp_path):
    rig = Rig(distortion=(-0.4, 0.0, 0.0, 0.0))
    layouts.nerfstudio(tmp_path / "in", rig)
    kept = import_capture(tmp_path / "in", tmp_path / "keep", ImportConfig(), 240)
    assert kept.valid is not None
    assert not kept.valid[:, 0, kept.images.shape[2] // 2].any()  # sides of a barrel bend inwards when straightened
    assert kept.valid[:, kept.images.shape[1] // 2, kept.images.shape[2] // 2].all()
    assert np.all(kept.images[~kept.valid] == 255)
    cropped = import_capture(tmp_path / "in", tmp_path / "crop", ImportConfig(edges="crop"), 240)
    assert cropped.valid is None
    back = read_capture(tmp_path / "keep")
    assert np.array_equal(back.valid, kept.valid)


def test_invalid_pixels_have_no_label(tmp_path):
    rig = Rig(distortion=(-0.4, 0.0, 0.0, 0.0))
    layouts.nerfstudio(tmp_path / "in", rig)
    path = tmp_path / "in" / "transforms.json"
    data = json.loads(path.read_text()) | {"classes": list(CELEBAMASK_HQ.names)}
    for i, frame in enumerate(data["frames"]):
        frame |= {"label_path": f"labels/{i}.png", "mask_path": f"masks/{i}.png"}
        save(tmp_path / "in" / frame["label_path"], np.full((36, 48), 1 + (np.arange(48) >= 24), np.uint8)[..., None])
        mask = np.full((36, 48), 255, np.uint8)
        mask[:, :8] = 0
        save(tmp_path / "in" / frame["mask_path"], mask)
    path.write_text(json.dumps(data))
    import_capture(tmp_path / "in", tmp_path / "out", ImportConfig(), 48)
    capture = read_capture(tmp_path / "out")
    assert capture.labels is not None
    assert capture.valid is not None
    assert np.all(capture.labels[~capture.valid] == IGNORE)
    assert set(np.unique(capture.labels[capture.valid])) == {1, 2}
    assert not capture.valid[:, 18, :6].any()
    half = read_capture(tmp_path / "out", size=24)
    assert np.all(half.labels[~half.valid] == IGNORE)
    again = capture.with_labels(np.ones_like(capture.labels), CELEBAMASK_HQ)
    assert np.array_equal(again.labels == IGNORE, ~capture.valid)


def test_a_mask_of_all_pixels_and_labels_reach_the_border(tmp_path):
    """The outermost pixels' middles lie up to half a pixel from the border of the shrunken photograph."""
    rig = Rig()
    layouts.nerfstudio(tmp_path / "in", rig)
    path = tmp_path / "in" / "transforms.json"
    data = json.loads(path.read_text()) | {"classes": list(CELEBAMASK_HQ.names)}
    for frame in data["frames"]:
        frame |= {"label_path": "seven.png", "mask_path": "all.png"}
    save(tmp_path / "in" / "seven.png", np.full((36, 48, 1), 7, np.uint8))
    save(tmp_path / "in" / "all.png", np.full((36, 48, 1), 255, np.uint8))
    path.write_text(json.dumps(data))
    for size in (48, 31, 90):
        capture = import_capture(tmp_path / "in", tmp_path / f"out-{size}", ImportConfig(), size)
        assert capture.valid is None
        assert np.all(capture.labels == 7)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_the_head_is_found_from_the_cameras(tmp_path, layout):
    rig = rig_of(layout, views=5)
    layouts.LAYOUTS[layout](tmp_path / "7", rig)
    capture = import_capture(tmp_path / "7", tmp_path / "out", ImportConfig(), 32)
    views = rig.views - (layout == "facescape")
    yaw, pitch = np.linspace(-50, 50, 5)[:views], np.linspace(-12, 12, 5)[:views]
    assert_close(capture.pitch, pitch, 0.1, "up is a compromise of sideways axes and mean up")
    assert_close(capture.yaw - capture.yaw.mean(), yaw - yaw.mean(), 0.1, "as above")
    assert_close(capture.yaw.mean(), 0.0, 1.0, "the front is where cameras stand on average")
    metres = 1.1 if layout in ("nersemble", "vhap") else 1.0
    far = np.linalg.norm(np.asarray(capture.cameras.centers), axis=-1)
    assert_close(far, np.full(views, metres), 1e-4, "float32 cameras, and axes that meet within that")


def test_the_front_may_be_named(tmp_path):
    layouts.nerfstudio(tmp_path / "in", Rig())
    capture = import_capture(tmp_path / "in", tmp_path / "out", ImportConfig(front="01.png"), 32)
    assert_close(capture.yaw, np.linspace(-25, 75, 5), 0.1, "up is a compromise of sideways axes and mean up")
    with pytest.raises(
        InputError, match=r"wanted the name of one photograph \(they are 00.png.*'09.png', of which there are 0"
    ):
        import_capture(tmp_path / "in", tmp_path / "other", ImportConfig(front="09.png"), 32)


def test_facescape_goes_to_its_common_frame(tmp_path):
    """Rt_scale_dict.json: millimetres, y up, looking along z."""
    folder = tmp_path / "12" / "3_mouth_stretch"
    rig = Rig(gauge=4.0)
    layouts.facescape(folder, rig)
    rotation, offset = rig.world_from_head
    rt = np.concatenate([rotation.T, -(250.0 * rotation.T @ offset)[:, None]], 1)
    (tmp_path / "Rt_scale_dict.json").write_text(json.dumps({"12": {"3": [250.0, rt.tolist()]}}))
    capture = import_capture(folder, tmp_path / "out", ImportConfig(), 32)
    assert capture.identity == "12_3_mouth_stretch"
    assert_close(capture.yaw, np.linspace(-50, 50, 5)[:4], 0.01, "float32 cameras")
    assert_close(capture.pitch, np.linspace(-12, 12, 5)[:4], 0.01, "float32 cameras")
    far = np.linalg.norm(np.asarray(capture.cameras.centers), axis=-1)
    assert_close(far, np.full(4, 1.1), 1e-4, "float32 cameras")


def test_facescape_drops_what_it_calls_unusable(tmp_path):
    layouts.facescape(tmp_path / "1_neutral", Rig())
    import_capture(tmp_path / "1_neutral", tmp_path / "out", ImportConfig(), 32)
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["dropped"] == ["4.jpg"]
    assert [v["source"] for v in record["views"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert record["head_from_source"]["scale_known"] is False


def test_nersemble_videos_and_moments(tmp_path):
    rig = rig_of("nersemble", views=3, width=64)
    layouts.nersemble(tmp_path / "030", rig, mattes=False)
    later = import_capture(tmp_path / "030", tmp_path / "a", ImportConfig(timestep=1), 64)
    want = rig.picture(10)[18, 32]
    at = np.round(np.asarray(later.images.shape[1:3]) / 2).astype(int)
    assert_close(
        later.images[1, at[0], at[1]].astype(float), want.astype(float), 4.0, "JPEG, and a bend of under a pixel"
    )
    images = tmp_path / "030" / "sequences" / "EXP-1-head" / "images"
    for path in sorted(images.glob("*_00000.jpg")):
        name = images / f"{path.stem.removesuffix('_00000')}.mp4"
        video = cv2.VideoWriter(str(name), cv2.VideoWriter.fourcc(*"mp4v"), 24, (64, 36))
        if not video.isOpened():
            pytest.skip("this OpenCV writes no MP4")
        for level in (40, 200):
            video.write(np.full((36, 64, 3), level, np.uint8))
        video.release()
    for path in images.glob("*.jpg"):
        path.unlink()
    filmed = import_capture(tmp_path / "030", tmp_path / "b", ImportConfig(timestep=1), 64)
    assert_close(filmed.images[:, 20, 30].astype(float), np.full((3, 3), 200.0), 6.0, "video compression")
    with pytest.raises(InputError, match=r"world_2_cam.222200036: wanted a frame 2, got cam_222200036.mp4 ends before"):
        import_capture(tmp_path / "030", tmp_path / "c", ImportConfig(timestep=2), 64)


def test_nersemble_of_all_people(tmp_path):
    rig = rig_of("nersemble", views=3)
    for person in ("030", "031"):
        layouts.nersemble(tmp_path / person, rig)
        (tmp_path / "camera_params" / person).mkdir(parents=True)
        file = tmp_path / person / "calibration" / "camera_params.json"
        file.rename(tmp_path / "camera_params" / person / file.name)
        (tmp_path / person / "sequences" / "EXP-1-head").rename(tmp_path / person / "EXP-1-head")
    assert detect(tmp_path) == "nersemble"
    with pytest.raises(InputError, match=r"wanted one of 030/EXP-1-head, 031/EXP-1-head, got none"):
        read_source(tmp_path, ImportConfig())
    source = read_source(tmp_path, ImportConfig(sequence="031/EXP-1-head"))
    assert source.identity == "031_EXP-1-head"
    assert {p.path.parts[-4] for p in source.photos} == {"031"}
    assert all(p.matte is not None for p in source.photos)


def test_plain_photographs(tmp_path, monkeypatch):
    """What is around COLMAP; its own work was looked at by hand."""
    rig = Rig(distortion=BROWN)
    for i in range(rig.views):
        save(tmp_path / "in" / f"{i:02d}.png", rig.picture(i))
    fake = FakeColmap(rig)
    monkeypatch.setitem(sys.modules, "pycolmap", fake)
    import_capture(tmp_path / "in", tmp_path / "out", ImportConfig(), 32)
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["layout"] == "photographs"
    assert record["dropped"] == ["04.png"]
    assert fake.calls == [([f"{i:02d}.png" for i in range(5)], "single")]
    fake.incremental_mapping = lambda *_: {}
    with pytest.raises(
        InputError,
        match=r"in: wanted photographs that overlap, got no cameras found; take more",
    ):
        import_capture(tmp_path / "in", tmp_path / "other", ImportConfig(), 32)


def test_a_matte_lays_a_known_colour_behind_the_head(tmp_path):
    rig = Rig(views=2)
    layouts.nerfstudio(tmp_path / "in", rig)
    for i in range(2):
        alpha = np.zeros((36, 48, 1), np.uint8)
        alpha[:, 24:] = 255
        image = np.concatenate([np.full((36, 48, 3), 90, np.uint8), alpha], -1)
        save(tmp_path / "in" / "images" / f"{i:02d}.png", image)
    capture = import_capture(tmp_path / "in", tmp_path / "out", ImportConfig(background=(10, 20, 30)), 48)
    assert capture.background == (10, 20, 30)
    assert capture.images[0, 18, 4].tolist() == [10, 20, 30]
    assert capture.images[0, 18, 44].tolist() == [90, 90, 90]
    save(tmp_path / "in" / "images" / "01.png", rig.picture(1))
    with pytest.raises(InputError, match=r"frames\[1\].file_path: wanted a matte or transparency in all photographs"):
        import_capture(tmp_path / "in", tmp_path / "other", ImportConfig(), 48)


VARIANTS = {  # name: (change of transforms.json, change of the rig's lens that it means)
    "angle": (
        lambda d, k: [d.pop(n) for n in ("fl_x", "fl_y")] and d.update(camera_angle_x=2 * np.arctan(24 / k[0, 0])),
        True,
    ),
    "fl_x only": (lambda d, k: d.pop("fl_y"), True),
    "lens per frame": (
        lambda d, k: (
            [f.update({n: d[n] for n in layouts.lens(Rig())}) for f in d["frames"]]
            and [d.pop(n) for n in layouts.lens(Rig())]
        ),
        False,
    ),
    "frame over file": (lambda d, k: [f.update(fl_x=d["fl_x"]) for f in d["frames"]] and d.update(fl_x=1.0), False),
    "size from the pictures": (lambda d, k: [d.pop(n) for n in ("w", "h")], False),
    "no extensions": (lambda d, k: [f.update(file_path=f["file_path"][:-4]) for f in d["frames"]], False),
    "instant-ngp extras": (lambda d, k: d.update(aabb_scale=4, scale=1, offset=[0, 0, 0], is_fisheye=False), False),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_transforms(tmp_path, name):
    change, square = VARIANTS[name]
    rig = Rig(square=square)
    layouts.nerfstudio(tmp_path / "in", rig)
    path = tmp_path / "in" / "transforms.json"
    data = json.loads(path.read_text())
    change(data, rig.k)
    path.write_text(json.dumps(data))
    for i, photo in enumerate(read_source(tmp_path / "in", ImportConfig()).photos):
        assert_close(photo.lens.project(projected(photo.camera_from_world, rig.points)), rig.pixels(i), *EXACT)


def test_blender_splits_its_frames(tmp_path):
    rig = Rig(square=True)
    layouts.nerfstudio(tmp_path / "in", rig)
    whole = tmp_path / "in" / "transforms.json"
    data = json.loads(whole.read_text())
    for name, part in (("train", data["frames"][:3]), ("test", data["frames"][3:])):
        (tmp_path / "in" / f"transforms_{name}.json").write_text(json.dumps(data | {"frames": part}))
    whole.unlink()
    assert len(read_source(tmp_path / "in", ImportConfig()).photos) == 5


def test_our_own_captures_can_be_imported_again(tmp_path):
    layouts.nerfstudio(tmp_path / "in", Rig())
    once = import_capture(tmp_path / "in", tmp_path / "once", ImportConfig(), 32)
    twice = import_capture(tmp_path / "once", tmp_path / "twice", ImportConfig(), 32)
    assert np.array_equal(once.images, twice.images)
    assert_close(twice.cameras.intrinsics, once.cameras.intrinsics, 1e-5, "float32 intrinsics")
    assert_close(twice.yaw, once.yaw, 1e-3, "float32 cameras")


def test_the_resolution_may_stay(tmp_path):
    layouts.nerfstudio(tmp_path / "in", Rig(square=True))
    capture = import_capture(tmp_path / "in", tmp_path / "out", ImportConfig())
    want = [Rig(square=True).picture(i) for i in range(5)]
    assert np.array_equal(capture.images, np.stack(want))
    assert_close(capture.cameras.intrinsics[0], Rig(square=True).k, 1e-5, "float32 intrinsics")
