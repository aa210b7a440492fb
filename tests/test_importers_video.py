"""Videos of a head: which frames are taken, and that they are then photographs like others."""

import json
import struct
import sys

import cv2
import numpy as np
import pytest
from layouts import FakeColmap, Rig

from jsplat.captures.capture import read_capture
from jsplat.captures.films import frames_of, write_film
from jsplat.captures.importers import ImportConfig, detect, import_capture
from jsplat.captures.importers.video import sharpest, write_frames
from jsplat.captures.own_pixels import own_pixels
from jsplat.errors import InputError
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.importing import foreign, import_all, import_one

RIG = Rig(width=96, height=72)
SHARP = [0, 6, 11, 12, 18]  # of four frames a view


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder with a film of the rig's views, most of whose frames are out of focus."""
    folder = tmp_path_factory.mktemp("films")
    pictures = [RIG.picture(i // 4) for i in range(4 * RIG.views)]
    blurred = [p if i in SHARP else cv2.GaussianBlur(p, (0, 0), 3) for i, p in enumerate(pictures)]
    write_film(folder / "talk.mp4", 24.0, blurred)
    return folder


@pytest.fixture
def colmap(monkeypatch):
    fake = FakeColmap(RIG)
    monkeypatch.setitem(sys.modules, "pycolmap", fake)
    return fake


def test_the_sharpest_frame_of_each_part():
    assert sharpest(np.asarray([0.0, 3, 1, 9, 2, 2, 5]), 3) == [1, 3, 6]
    assert sharpest(np.asarray([1.0, 0.0]), 64) == [0, 1], "no frame twice"
    assert len(set(sharpest(np.zeros(1000), 64))) == 64


def test_a_video_becomes_a_capture(films, tmp_path, colmap, capsys):
    config = RunConfig(size=48, capture=ImportConfig(frames=5))
    import_one(films / "talk.mp4", tmp_path / "out", config)
    assert "talk.mp4: 5 of 20 frames are used, the sharpest of each part" in capsys.readouterr().err
    assert colmap.calls == [([f"{i:06d}.jpg" for i in SHARP], "single")]
    record = json.loads((tmp_path / "out/import.json").read_text())
    assert (record["layout"], record["video"]) == ("video", str(films / "talk.mp4"))
    assert record["dropped"] == ["000018.jpg"]
    capture = read_capture(tmp_path / "out")
    assert (capture.identity, capture.images.shape) == ("talk", (4, 35, 48, 3))
    (tmp_path / "out").rename(tmp_path / "moved")  # the frames go with the capture
    own = own_pixels(tmp_path / "moved")
    assert [one.name for one in own] == [f"{i:06d}" for i in SHARP[:4]]
    for i, one in enumerate(own):
        assert np.abs(one.read().astype(int) - RIG.picture(i)).mean() < 6, "compressed twice"
    import_one(films / "talk.mp4", tmp_path / "moved", config)
    assert len(colmap.calls) == 1, "made before, of the same video"


def test_a_run_takes_a_video_or_a_folder_of_them(films, tmp_path, colmap):
    assert foreign(films / "talk.mp4") == foreign(films) == {"talk": films / "talk.mp4"}
    assert detect(films / "talk.mp4") == "video"
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    sources, refused = foreign(films) | {"broken": tmp_path / "broken.mp4"}, {}
    config = RunConfig(size=48, capture=ImportConfig(frames=5))
    assert import_all(sources, tmp_path / "captures", config, refused) == [tmp_path / "captures/talk"]
    assert "wanted a video that this OpenCV can decode, got 7 bytes; convert it to MP4" in refused["broken"]
    assert not (tmp_path / "captures/broken").exists()
    (tmp_path / "broken.mov").write_bytes(b"no film")
    with pytest.raises(InputError, match=r"wanted captures of different names, got broken.mov and broken.mp4; rename"):
        foreign(tmp_path)
    with pytest.raises(InputError, match="got none of them; name the video itself"):
        detect(films)


def test_videos_that_cannot_be_used(films, tmp_path, monkeypatch):
    write_film(tmp_path / "short.mp4", 24.0, [RIG.picture(0)] * 2)
    with pytest.raises(InputError, match=r"short.mp4: wanted a video of at least 3 frames, got 2; film the head"):
        write_frames(tmp_path / "short.mp4", tmp_path / "short", 64)
    with pytest.raises(InputError, match=r"ImportConfig.frames: wanted at least 3, got 2"):
        ImportConfig(frames=2)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(InputError, match=r"talk.mp4: wanted the package pycolmap, .*`pip install 'jsplat\[sfm\]'`"):
        import_capture(films / "talk.mp4", tmp_path / "out", ImportConfig())
    assert not (tmp_path / "out").exists()


def test_a_video_that_a_phone_turned(films, tmp_path):
    """The track header's matrix says a quarter turn; frames are upright, as `predict` sees them."""
    film = (films / "talk.mp4").read_bytes()
    matrix = film.index(b"tkhd") + 44
    assert struct.unpack(">9i", film[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turn = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 72 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(film[:matrix] + turn + film[matrix + 36 :])
    files = write_frames(tmp_path / "turned.mp4", tmp_path / "frames", 5)
    assert [int(file.stem) for file in files] == SHARP
    want = np.rot90(list(frames_of(films / "talk.mp4"))[SHARP[1]], -1)
    assert np.abs(cv2.imread(str(files[1]))[..., ::-1].astype(int) - want).mean() < 4
