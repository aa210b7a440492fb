"""What a run says that it will take."""

from types import SimpleNamespace

import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.fitting import step_seconds
from jsplat.kernels.blend import IMPLEMENTATIONS
from jsplat.kernels.select import Implementation
from jsplat.pipeline import RunConfig
from jsplat.pipeline.estimate import Needs, check_room, duration, needs, room_for
from jsplat.raster.rasterizer import default_backend
from tests import ball

SHAPES = [(56, 384, 512)] * 2


def test_needs_by_hand():
    config = RunConfig().for_side(512, input_size=512)
    need = needs(SHAPES, 19, config, student_people=1, input_size=512)
    assert need.first_labels == 2 * 56 * 64 * 64 * 19 * 2 * (1 + config.flip)
    assert need.scenes == 2 * 48_000 * 33 * 4
    assert need.training == 8 * (56 + config.views.wanted) * 512**2
    maps = needs(SHAPES, 19, config, student_people=0, input_size=None)
    assert (maps.first_labels, maps.training) == (2 * 56 * 384 * 512, 0)


def test_what_cannot_fit_is_refused_and_what_would_is_named():
    need = Needs(first_labels=3_000_000_000, scenes=1_000_000_000, training=8_000_000_000)
    check_room(need, 4_000_000_000, 8_000_000_000, 512)
    with pytest.raises(InputError, match=r"OUT: disk: wanted at least 4 GB free, got 1 GB; `--set size=256` fits"):
        check_room(need, 1_000_000_000, 8_000_000_000, 512)
    with pytest.raises(InputError, match=r"memory: wanted at least 8 GB .*, got 2 GB; `--set size=256` fits"):
        check_room(need, 4_000_000_000, 2_000_000_000, 512)


def test_room_counts_what_a_killed_run_has_made_already(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=7))
    free, memory = room_for(tmp_path / "out")
    assert (free, memory > 0) == (7, True)
    (tmp_path / "out" / ".parse.0123" / "x").mkdir(parents=True)
    (tmp_path / "out" / ".parse.0123" / "x" / "ada.npz").write_bytes(bytes(5000))
    assert room_for(tmp_path / "out")[0] == 5007


def test_a_measured_step_is_a_time_and_leaves_the_fit_as_it_is():
    assert 0 < step_seconds(ball.capture("ada", np.arange(8) * 45.0, size=16), ball.FIT) < 60


def test_what_rasterizes_is_told_and_why_nothing_better_does(monkeypatch):
    monkeypatch.setitem(IMPLEMENTATIONS, "cpu", Implementation(lambda: None, lambda facts: "wanted it, got none"))
    assert default_backend() == "xla (cpu: wanted it, got none)"
    monkeypatch.setitem(IMPLEMENTATIONS, "cpu", Implementation(lambda: None, lambda facts: None))
    assert default_backend() == "cpu"


def test_times_for_people():
    assert [duration(s) for s in (7.4, 300.0, 9000.0)] == ["7 s", "5 min", "2.5 h"]
