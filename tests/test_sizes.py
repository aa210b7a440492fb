"""What settings leave open follows the pictures: sizes, Gaussians, steps, the grid of labels."""

import dataclasses
import re

import pytest

from jsplat.captures.capture import write_capture
from jsplat.captures.index import list_captures, log_resized
from jsplat.config import load
from jsplat.errors import InputError
from jsplat.fitting import FitConfig
from jsplat.parser import ParserConfig
from jsplat.pipeline import RunConfig
from jsplat.training_sets.reading import DatasetConfig, longer_side
from tests import ball, layouts
from tests.test_training_sets import labels_of, viewers_face


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    for name, size in {"ada": 24, "bob": 16}.items():
        write_capture(root / name, ball.capture(name, size=size))
    return root


def test_captures_are_read_as_the_largest_of_them_up_to_a_limit(people, monkeypatch, capsys):
    listed = list_captures(people, 0)
    assert [(one.size, one.shape[1:]) for one in listed] == [(24, (24, 24)), (24, (24, 24))]
    assert listed[1].read().images.shape[1:3] == (24, 24)
    log_resized(listed)
    assert capsys.readouterr().err == f"captures: {listed[1].shape[0]} pictures of 16x16 are used at 24x24\n"
    monkeypatch.setattr("jsplat.captures.index.MOST", 12)
    listed = list_captures(people, 0)
    assert [one.shape[1:] for one in listed] == [(12, 12), (12, 12)]
    log_resized(listed[:1])
    line = f"captures: {listed[0].shape[0]} pictures of 24x24 are used at 12x12 (--set size=24 for all of it)\n"
    assert capsys.readouterr().err == line
    # Asked for, a size is what it is, and what becomes smaller is told all the same.
    assert [one.shape[1:] for one in list_captures(people, 20)] == [(20, 20), (20, 20)]
    assert [one.shape[1:] for one in list_captures(people, None)] == [(24, 24), (16, 16)]


def test_upright_pictures_are_told_as_width_times_height(people, capsys):
    (one,) = list_captures(people / "ada", 0)
    log_resized([dataclasses.replace(one, shape=(7, 512, 384), own=(1200, 1600))])
    assert "7 pictures of 1200x1600 are used at 384x512 (--set size=1600 " in capsys.readouterr().err


def test_training_sets_are_read_at_their_own_size(people, tmp_path, monkeypatch):
    assert longer_side(people) == 24
    labels_of(tmp_path, "lapa", viewers_face())
    config = DatasetConfig(split="all")
    assert longer_side(tmp_path, config) == 8
    monkeypatch.setattr("jsplat.training_sets.reading.MOST", 6)
    assert longer_side(tmp_path, config) == 6


def test_what_is_left_open_follows_the_size_and_what_is_set_stays():
    config = RunConfig()
    decided = {pixels: config.for_side(pixels, input_size=320) for pixels in (32, 96, 128, 512)}
    assert {p: (c.size, c.fit.gaussians, c.fit.steps, c.finetune.label_size) for p, c in decided.items()} == {
        32: (32, 3000, 200, 32),
        96: (96, 9000, 400, 96),
        128: (128, 12000, 500, 128),
        512: (512, 48000, 2000, 320),
    }
    assert config.for_side(512).finetune.label_size == 0, "no parser, no grid"
    fixed = RunConfig(fit=FitConfig(gaussians=7, steps=3), finetune=ParserConfig(label_size=48))
    again = fixed.for_side(512, input_size=320)
    assert (again.fit, again.finetune) == (fixed.fit, fixed.finetune)
    with pytest.raises(InputError, match="size: wanted pixels, or 0"):
        RunConfig(size=-1)


def test_a_setting_that_means_the_same_is_one_and_the_old_name_says_which():
    with pytest.raises(InputError, match=r"--set capture\.size: wanted size, as it is called now, got 'capture\.size'"):
        load(RunConfig, None, ["capture.size=1024"])
    with pytest.raises(InputError, match=r"wanted a known key \(nearest: teacher\.input_size\)"):
        load(RunConfig, None, ["finetune.input_size=64"])  # a parser that is fine-tuned keeps its network


def test_photographs_are_brought_in_as_fine_as_they_are_up_to_a_limit(tmp_path, monkeypatch, capsys):
    layouts.nerfstudio(tmp_path / "in", layouts.Rig())
    own = layouts.run(tmp_path / "in", size=0).images.shape[1:3]
    assert max(own) in range(44, 60), "photographs of 48 x 36, their lens undone"
    assert "brought in" not in capsys.readouterr().err
    monkeypatch.setattr("jsplat.captures.importers.rectify.MOST", 24)
    assert max(layouts.run(tmp_path / "in", size=0).images.shape[1:3]) == 24
    line = (
        rf"import: \d photographs of {max(own)} pixels are brought in at 24 \(--set size={max(own)} for all of it\)\n"
    )
    assert re.search(line, capsys.readouterr().err)
    with pytest.raises(InputError, match="--set size: wanted 0, or 16 to 32766 pixels, got 3"):
        layouts.run(tmp_path / "in", size=3)
