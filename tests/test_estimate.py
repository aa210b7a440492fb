"""What a run says that it will take."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.fitting import FitConfig, try_fit
from jsplat.kernels.blend import IMPLEMENTATIONS
from jsplat.kernels.select import Implementation
from jsplat.pipeline import RunConfig
from jsplat.pipeline.estimate import Needs, available, check_resources, duration, needs
from jsplat.pipeline.forecast import check_device
from jsplat.pipeline.outlook import Outlook
from jsplat.pipeline.settling import Settled
from jsplat.raster.rasterizer import default_backend
from jsplat.runtime.cost import Cost
from jsplat.runtime.progress import Progress
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
    check_resources(need, 4_000_000_000, 8_000_000_000, 512)
    with pytest.raises(InputError, match=r"OUT: disk: wanted at least 4 GB free, got 1 GB; `--set size=256` fits"):
        check_resources(need, 1_000_000_000, 8_000_000_000, 512)
    with pytest.raises(InputError, match=r"memory: wanted at least 8 GB .*, got 2 GB; `--set size=256` fits"):
        check_resources(need, 4_000_000_000, 2_000_000_000, 512)


def test_room_counts_what_a_killed_run_has_made_already(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=7))
    free, memory = available(tmp_path / "out")
    assert (free, memory > 0) == (7, True)
    (tmp_path / "out" / ".parse.0123" / "x").mkdir(parents=True)
    (tmp_path / "out" / ".parse.0123" / "x" / "ada.npz").write_bytes(bytes(5000))
    assert available(tmp_path / "out")[0] == 5007


def test_a_fit_that_is_tried_tells_time_and_memory():
    tried = try_fit(ball.capture("ada", np.arange(8) * 45.0, size=16), ball.FIT)
    assert 0 < tried.step.seconds < 60
    assert tried.memory > 8 * 16 * 16 * 3  # its pictures alone
    assert tried.scene.gaussians.means.shape == (ball.FIT.gaussians, 3)


def test_work_side_by_side_takes_no_less_than_its_processors():
    alone = Cost(seconds=2.0, processor=3.0)
    assert alone.of_many(10, at_once=2, cores=4) == 10
    assert alone.of_many(10, at_once=2, cores=2) == 15
    assert alone.of_many(10, at_once=2, cores=0) == 10


def test_a_device_that_is_too_small_is_refused_and_what_would_do_is_named():
    config = RunConfig().for_side(512, input_size=512)
    check_device({"fit": 80, "label": 90, "student": 45}, 100, config)
    half = (
        r"fit: memory of the device: wanted at most 90% .*; `--set size=362` or `--set fit.gaussians=24000` should fit"
    )
    with pytest.raises(InputError, match=half):
        check_device({"fit": 180}, 100, config)
    with pytest.raises(InputError, match=r"student: memory .*; `--set finetune.batch=4`"):
        check_device({"student": 180}, 100, config)


def planned() -> mock.Mock:
    """What an outlook looks at, of a run on people of 10 views."""
    config = RunConfig(ablation=False, fit=FitConfig(gaussians=9, steps=100))
    listed = [SimpleNamespace(shape=(10, 8, 8), labelset=None)] * 4
    plan = SimpleNamespace(stages=("parse", "fit", "label", "render"))
    return mock.Mock(spec=Settled, config=config, listed=listed, teacher=object(), plan=plan)


def test_an_outlook_speaks_from_the_second_line_of_the_fit_on_and_only_of_what_is_not_done(capsys):
    done, settled = {"parse": 4.0}, planned()
    outlook = Outlook(settled, done)
    outlook.begins("fit")
    progress = mock.Mock(spec=Progress, what="fit", done=100, total=400, start=0.0, last=50.0)
    outlook.watch(progress)
    assert capsys.readouterr().err == ""
    progress.done, progress.last = 200, 60.0  # a step takes 0.1 s, whatever was compiled before
    outlook.watch(progress)
    told = capsys.readouterr().err
    assert "fit 40 s" in told
    assert "label" in told
    assert "render" in told
    assert "parse" not in told
    done["fit"] = 40.0
    outlook.begins("label")
    assert "fit" not in capsys.readouterr().err


def test_what_rasterizes_is_told_and_why_nothing_better_does(monkeypatch):
    monkeypatch.setitem(IMPLEMENTATIONS, "cpu", Implementation(lambda: None, lambda facts: "wanted it, got none"))
    assert default_backend() == "xla (cpu: wanted it, got none)"
    monkeypatch.setitem(IMPLEMENTATIONS, "cpu", Implementation(lambda: None, lambda facts: None))
    assert default_backend() == "cpu"


def test_times_for_people():
    assert [duration(s) for s in (7.4, 300.0, 9000.0)] == ["7 s", "5 min", "2.5 h"]
