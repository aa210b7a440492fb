"""Nothing of a training set is left out without a word: missing halves of pairs, what systems leave, other files."""

import pytest
from test_training_sets import ALL, celebamask, face, labels_of, splits

from jsplat.errors import InputError
from jsplat.files import foreign
from jsplat.training_sets.reading import DatasetConfig, list_dataset, read_training_set

FOLDERS = {  # kind -> (its folder of photographs, of label maps, the first of each)
    "lapa": ("train/images", "train/labels", "0.jpg", "0.png"),
    "helen": ("train", "train", "0_image.jpg", "0_label.png"),
    "ibugmask": ("train", "train", "0.jpg", "0.png"),
    "facesynthetics": (".", ".", "000000.png", "000000_seg.png"),
}
LENIENT = DatasetConfig(max_missing=0.4, side_checks=0)


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(foreign, "_logged", set())


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_systems_leave_is_no_picture(tmp_path, capsys, kind):
    labels_of(tmp_path / "set", kind, face())
    images, labels, image, label = FOLDERS[kind]
    for name in (f"{images}/._{image}", f"{labels}/._{label}", f"{images}/notes.txt"):
        (tmp_path / "set" / name).write_bytes(b"\0\5\26\7")
    listing = list_dataset(tmp_path / "set")
    assert len(listing.samples) == 3
    assert listing.passed_over == {"._ files": 2, ".txt": 1}
    assert capsys.readouterr().err == "set: passed over 2 ._ files, 1 .txt\n"


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("half", [0, 1])
def test_half_a_pair_is_missing(tmp_path, capsys, kind, half):
    labels_of(tmp_path / "set", kind, face())
    names = FOLDERS[kind]
    (tmp_path / "set" / names[half] / names[2 + half]).unlink()
    message = rf"{names[3 - half]}: wanted an image, got no file {names[2 + half]} \(1 of 3 .*dataset.max_missing=0.34`"
    with pytest.raises(InputError, match=message):
        list_dataset(tmp_path / "set")
    assert len(list_dataset(tmp_path / "set", LENIENT).samples) == 2
    assert capsys.readouterr().err == f"set: missing and left out: 1 of 3 listed pictures: {names[2 + half]}\n"


def test_celebamask_accounts_for_its_files(tmp_path, capsys):
    celebamask(tmp_path / "set")
    splits(tmp_path / "set", "000")
    masks = tmp_path / "set" / "CelebAMask-HQ-mask-anno"
    for name in ("0/._00001_skin.png", "0/notes.txt", ".DS_Store"):
        (masks / name).write_bytes(b"\0")
    partition = tmp_path / "set" / "list_eval_partition.txt"
    partition.write_bytes(b"\xef\xbb\xbf" + partition.read_bytes())
    (tmp_path / "set" / "CelebA-HQ-img" / "7.jpg").write_bytes(b"\0")
    data = read_training_set(tmp_path / "set", None, DatasetConfig(side_checks=0))
    assert data.identity == ("0", "1", "2")
    passed_over = capsys.readouterr().err.removeprefix("set: passed over ").strip().split(", ")
    assert sorted(passed_over) == ["1 .DS_Store", "1 ._ files", "1 .jpg", "1 .txt"]
    (tmp_path / "set" / "CelebA-HQ-img" / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"CelebA-HQ-img/1.jpg: wanted an image, got no file 1.jpg \(1 of 3 listed"):
        list_dataset(tmp_path / "set", ALL)
    assert [s.name for s in list_dataset(tmp_path / "set", LENIENT).samples] == ["0", "2"]
    assert "set: missing and left out: 1 of 3 listed pictures: 1.jpg\n" in capsys.readouterr().err


def test_a_set_without_any_whole_pair(tmp_path):
    labels_of(tmp_path, "facesynthetics", face(), count=1)
    (tmp_path / "000000.png").unlink()
    with pytest.raises(InputError, match=r"wanted labelled pictures, got none, 1 are missing"):
        list_dataset(tmp_path, DatasetConfig(max_missing=1.0))
    with pytest.raises(InputError, match=r"dataset.max_missing: wanted a share from 0 to 1, got -1.0"):
        DatasetConfig(max_missing=-1.0)
