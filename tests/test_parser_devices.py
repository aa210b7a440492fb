"""Training on four devices of two processes: what one device would have learnt, each doing its share.

Run as a program (`python -m tests.test_parser_devices FOLDER [INDEX PORT]`) this file is what its tests start, because
a process has its devices once: one device, or two of the four.
"""

import logging
import os
import re
import socket
import sys
from pathlib import Path

import jax

if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    if len(sys.argv) > 2:
        jax.config.update("jax_num_cpu_devices", 2)
        jax.distributed.initialize(f"127.0.0.1:{sys.argv[3]}", num_processes=2, process_id=int(sys.argv[2]))

import numpy as np
import pytest
from jax.sharding import Mesh

from jsplat.files.arrays import read_arrays, write_arrays
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import History, Parser, TeacherConfig, new_parser, train_parser
from jsplat.parser import train as training
from jsplat.parser.model import is_statistic
from jsplat.runtime.devices import BATCH
from jsplat.training_sets.auxiliary import AuxiliarySet
from tests.processes import QUICK, finish, programs

ROOT = Path(__file__).resolve().parents[1]
TWO = LabelSet(("background", "blob"), ((0, 0, 0), (255, 0, 0)), ("background", "blob"))
# 20 pictures are 5 for each of four devices: no side, channel or kernel of the network has either number. No pixel is
# hard: what counts is the hardest quarter of the whole batch. The learning rate is small because Adam makes a whole
# step of every gradient, also of one that is nothing but rounding.
CONFIG = TeacherConfig(
    width=0.05,
    input_size=64,
    label_size=32,
    steps=2,
    batch=20,
    learning_rate=2e-4,
    ohem_threshold=1e9,
    ohem_min_fraction=0.25,
    log_every=1,
)
COMPILED = "Finished XLA compilation of jit(train_step)"
COLLECTIVE = re.compile(r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
CONVOLUTION = re.compile(r"= f32\[([\d,]+)\]\S* convolution\(.*op_name=\"jit\(train_step\)/jvp")


def data() -> AuxiliarySet:
    """24 noisy pictures with a red square somewhere."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 200, (24, 64, 64, 3)).astype(np.uint8), np.zeros((24, 64, 64), np.uint8)
    for image, label, (y, x) in zip(images, labels, random.integers(0, 40, (24, 2))):
        image[y : y + 20, x : x + 20], label[y : y + 20, x : x + 20] = (250, 40, 40), 1
    zeros = np.zeros(24, np.float32)
    return AuxiliarySet(images, labels, zeros + 1, ("a",) * 24, zeros, zeros, ("photo",) * 24, TWO)


def write(path: Path, parser: Parser, history: History, **about: int) -> None:
    """What a training gave."""
    assert all(x.sharding.device_set == {jax.local_devices()[0]} for x in parser.variables.values())
    np.savez(path, loss=history.loss, **about, **parser.variables)


def on_processes(folder: Path, index: int) -> None:
    """The training shared with another process, then found finished by both; and arrays that one of them saves."""
    assert (jax.process_index(), jax.device_count(), jax.local_device_count()) == (index, 4, 2)
    step, calls, compiled = training.train_step, [], []
    jax.config.update("jax_log_compiles", True)
    log = logging.getLogger("jax._src.dispatch")
    log.addFilter(lambda record: compiled.append(1) if COMPILED in record.getMessage() else None)

    def noted(*arguments):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arguments[:5])
        calls.append((*shapes, *arguments[5:]))
        return step(*arguments)

    training.train_step = noted
    mesh = Mesh(np.asarray(jax.devices()), (BATCH,))
    for name in (f"process{index}", f"again{index}"):
        result = train_parser(data(), CONFIG, 0, mesh=mesh, resume=folder / "resume")
        write(folder / f"{name}.npz", *result, steps=len(calls), compiled=len(compiled))
    if index == 1:
        write_arrays(folder / "alone", {"index": np.asarray(index)})
        assert int(read_arrays(folder / "alone")["index"]) == index
    else:
        # The program that ran: nothing is compiled again.
        (folder / "program.txt").write_text(step.lower(*calls[0]).compile().as_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the programs wrote, all three running at once."""
    folder = tmp_path_factory.mktemp("devices")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | QUICK | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.test_parser_devices", str(folder)]
    with programs() as start:
        finish(*(start([*command, *more], cwd=ROOT, env=environment) for more in ([], ["0", port], ["1", port])))
    return folder


def learnt(path: Path) -> dict[str, np.ndarray]:
    """What `write` wrote."""
    with np.load(path) as arrays:
        return dict(arrays)


def distance(one: dict, two: dict, names: list[str]) -> float:
    """Length of the difference over the length of the one, all named arrays taken together."""
    of, off = (
        np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in parts))
        for parts in ([one[n] for n in names], [one[n] - two[n] for n in names])
    )
    return float(off / of)


def test_what_four_devices_learn_is_what_one_learns(folder):
    one, many = learnt(folder / "one.npz"), learnt(folder / "process0.npz")
    first = {name: np.asarray(value) for name, value in new_parser(CONFIG.architecture, TWO, 0).variables.items()}
    # float32 sums over the batch in another order. Statistics of 5 pictures, or the hardest pixels of each
    # device's own, would be off by percents.
    np.testing.assert_allclose(many["loss"], one["loss"], rtol=1e-5)
    for statistic in (True, False):
        names = [name for name in first if is_statistic(name) == statistic]
        assert distance(one, many, names) < 1e-5
        assert distance(one, first, names) > 1e-3, "too little was learnt to tell"


def test_each_device_does_its_share_and_they_exchange_only_sums(folder):
    program = (folder / "program.txt").read_text()
    batches = {int(shape.split(",")[0]) for shape in CONVOLUTION.findall(program)}
    assert batches == {CONFIG.batch // 4}
    assert set(COLLECTIVE.findall(program)) == {"all-reduce"}


def test_processes_agree_to_the_bit_and_find_what_they_finished(folder):
    runs = [learnt(folder / f"{name}.npz") for name in ("process0", "process1", "again0", "again1")]
    assert [(int(run.pop("steps")), int(run.pop("compiled"))) for run in runs] == [(CONFIG.steps, 1)] * 4
    for run in runs[1:]:
        for name, value in runs[0].items():
            np.testing.assert_array_equal(run[name], value, err_msg=name)
    assert [path.name for path in (folder / "resume").iterdir()] == [f"{CONFIG.steps:08d}"]


def test_any_process_saves_arrays_that_another_reads(folder):
    assert int(read_arrays(folder / "alone")["index"]) == 1


if __name__ == "__main__":
    if len(sys.argv) > 2:
        on_processes(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        write(Path(sys.argv[1]) / "one.npz", *train_parser(data(), CONFIG, 0))
