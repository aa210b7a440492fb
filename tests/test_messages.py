"""What messages tell people to do: an error's `hint`, once for each kind, and never within `wanted` or `got`."""

import ast
import collections
import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jsplat import cli
from jsplat.captures.capture import capture_folders, frames_of, inside, lens_of
from jsplat.captures.films import about_film
from jsplat.captures.importers.importing import detect
from jsplat.captures.importers.nerfstudio import lens_of as nerfstudio_lens
from jsplat.captures.pictures import read_image
from jsplat.errors import InputError
from jsplat.exchange.shapes import id_of
from jsplat.exchange.store import read_files
from jsplat.files.arrays import read_arrays
from jsplat.files.foreign import check_missing, read_text
from jsplat.fitting.scenes_on_disk import check_scenes, load_scenes
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.parser.checkpoint import load_parser
from jsplat.parser.weights.files import read_weights
from jsplat.pipeline.commands import labelset_in
from jsplat.pipeline.elsewhere import gather
from jsplat.pipeline.stages.label import labels_of
from jsplat.pipeline.status import status
from jsplat.pipeline.work_folder import load_arrays, save_arrays
from jsplat.training_sets.elsewhere import open_source
from jsplat.training_sets.reading import read_training_set

ROOT = Path(__file__).parents[1]
ADVICE = re.compile(r"`--set|--set [a-z_.]+=|pip install|[(;] ?(move|rename|delete|keep|wait|put|draw|write|take) ")
LENS = {"w": 8, "h": 8, "fl_x": 9}

# By what is wrong in an empty folder `at`: what is called, and what its error says to do.
HINTS = {
    "no captures": (lambda at: capture_folders(at), "`jsplat import` makes a capture"),
    "no training set": (lambda at: read_training_set(at), "`jsplat import` makes a capture"),
    "an unknown layout": (lambda at: detect(at), "name the folder that holds that file"),
    "an archive": (lambda at: detect(write(at / "a.zip", b"PK")), "unpack an archive first"),
    "photographs of phones": (lambda at: detect(write(at / "a.heic", b"").parent), "`heif-convert`"),
    "labels of some views": (
        lambda at: frames_of({"frames": [{"label_path": "a"}, {}]}, "x"),
        "leave out the views without labels",
    ),
    "several lenses": (lambda at: frames_of({"frames": [{}, {"fl_x": 3}]}, "x"), "`jsplat import` brings several"),
    "distortion": (lambda at: lens_of(LENS | {"k1": 0.1}, "x"), "`jsplat import` undoes"),
    "a fisheye's number": (lambda at: nerfstudio_lens(LENS | {"k4": 0.1}, at, "x"), "`is_fisheye`"),
    "a path that leads elsewhere": (lambda at: inside(at, "../a.png", "x"), "put the file in that folder"),
    "a cut picture": (lambda at: read_image(write(at / "a.png", b"\x89PNG\r\n\x1a\n"), "x"), "copy it again"),
    "another kind of picture": (lambda at: read_image(write(at / "a.gif", b"GIF89a"), "x"), "convert it to PNG"),
    "an opacity": (lambda at: read_image(picture(at / "a.png"), "x"), "`jsplat import` of the original"),
    "pictures that are missing": (
        lambda at: check_missing([("x", "a.png")], 1, 0.3, "capture.max_missing"),
        "`--set capture.max_missing=0.5` goes on",
    ),
    "no picture at all": (lambda at: check_missing([("x", "a.png")], 0, 0.3, "capture.max_missing"), "put them where"),
    "an old encoding": (lambda at: read_text(write(at / "a.txt", b"\xe4")), "save it as UTF-8"),
    "no parser": (lambda at: load_parser(at), "`jsplat convert` makes one"),
    "a parser where weights go": (lambda at: read_weights(write(at / "parser.json", b"").parent), "use it as it is"),
    "no scenes": (lambda at: check_scenes(at), "`jsplat fit` makes them"),
    "nobody's scene": (lambda at: load_scenes(at, ["ada"]), "`jsplat fit` makes them"),
    "no labels": (lambda at: labelset_in(at), "RUN/parse and RUN/label"),
    "first labels for refined ones": (lambda at: labels_of(parsed(at), "ada", CELEBAMASK_HQ), "`label` refines"),
    "no run": (lambda at: status(at), "OUT/run of a demo"),
    "damaged arrays": (lambda at: load_arrays(write(at / "a.npz", b"PK")), "move that folder away"),
    "damaged parameters": (lambda at: read_arrays(write(at / "x/_METADATA", b"{").parent), "move that folder away"),
    "a damaged video": (lambda at: about_film(write(at / "a.mp4", b"x")), "`ffmpeg -i"),
    "a damaged archive": (lambda at: read_files(write(at / "a.zip", b"PK")), "export or download it again"),
    "a class of another name": (lambda at: id_of("snout", CELEBAMASK_HQ, "x"), "rename it in the annotation tool"),
    "no masks": (lambda at: open_source(str(at)), "convert other formats to PNG"),
    "two voters of one name": (
        lambda at: gather(None, [f"{write(at / i / 'm/a.png', b'').parent}=cihp" for i in "ab"], []),
        "rename a folder",
    ),
}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def picture(path: Path) -> Path:
    Image.new("RGBA", (4, 4)).save(path)
    return path


def parsed(folder: Path) -> Path:
    save_arrays(folder / "ada.npz", packed=np.zeros(1))
    return folder


@pytest.mark.parametrize("name", HINTS)
def test_an_error_says_what_to_do(name, tmp_path):
    call, hint = HINTS[name]
    with pytest.raises(InputError) as caught:
        call(tmp_path)
    assert hint in caught.value.hint
    assert str(caught.value).endswith(f"; {caught.value.hint}")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a.npz"),
            "got No space left on device: a.npz; make room there",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "got Permission denied: a; change its permissions"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "got No such file or directory: a"),
        (OSError("odd"), "got odd"),
    ],
)
def test_an_error_of_the_system_is_told_in_its_words(error, message):
    assert f"x: wanted y, {message}" in str(InputError("x", wanted="y", got=error))
    assert str(InputError("x", wanted="y", got=error, hint="pray")).endswith("; pray")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a.npz"), "out/a.npz: wanted files that can be read and"),
        (MemoryError(), "memory: wanted enough for this work, got too little; take smaller pictures"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile"), "got RESOURCE_EXHAUSTED: Out of memory while; take"),
        (InputError("x", wanted="y", got="two\nlines"), "x: wanted y, got two lines"),
    ],
)
def test_errors_from_outside_end_in_one_line(error, message, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr("jsplat.cli.settings.readers", fails)
    result = CliRunner().invoke(cli.main, ["settings"])
    (line,) = result.output.splitlines()
    assert result.exit_code == 1
    assert line.startswith("Error: ")
    assert message in line


@pytest.mark.parametrize("words", [["--people", "0"], ["--views", "1"], ["--first", "-1"], ["--set", "seed=-1"]])
def test_people_that_cannot_be_made_are_refused_before_anything_is(words, tmp_path):
    result = CliRunner().invoke(cli.main, ["heads", str(tmp_path / "out"), *words])
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "out").exists()


def texts(source: str, *names: str) -> Iterator[tuple[int, str]]:
    """Line and text of every literal that is given to, or assigned to, one of these names."""
    for node in ast.walk(ast.parse(source)):
        pairs: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.keyword) and node.arg:
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
            pairs = [(target.id, node.value)]
        elif isinstance(node, ast.Assign) and isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = [(t.id, v) for t, v in zip(target.elts, node.value.elts) if isinstance(t, ast.Name)]
        for name, value in pairs:
            if name in names and isinstance(value, (ast.Constant, ast.JoinedStr)):
                yield value.lineno, ast.unparse(value)


def found_in_the_package(*names: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "jsplat").rglob("*.py")):
        for line, text in texts(path.read_text(), *names):
            yield f"{path.relative_to(ROOT)}:{line}", text


def test_what_to_do_is_in_the_hint():
    assert ADVICE.search("one model (move the others away)")
    assert ADVICE.search("0 or more (`--set unseen=0` teaches all)")
    assert [*texts("wanted, got = 'a', f'b{c}'", "got")] == [(1, "f'b{c}'")]
    assert {where: text for where, text in found_in_the_package("wanted", "got") if ADVICE.search(text)} == {}


def test_no_hint_is_written_twice():
    places = collections.defaultdict(list)
    for where, text in found_in_the_package("hint"):
        places[json.dumps(text)].append(where)
    assert len(places) > 100
    # ADVICE is that one place, and every caller says what it is about.
    assert {text: where for text, where in places.items() if len(where) > 1 and "{ADVICE}" not in text} == {}
