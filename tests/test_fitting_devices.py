"""Several devices: the same bits as on one; in the fit no word between them, and no more work for any."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import QUICK, finish, programs

ROOT = Path(__file__).resolve().parents[1]
COUNTS = 1, 4


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `fit_on_devices` wrote, on one device and on four."""
    folder = tmp_path_factory.mktemp("devices")
    with programs() as start:
        command = [sys.executable, "-m", "tests.fit_on_devices"]
        finish(*(start([*command, str(n), str(folder / f"{n}.npz")], cwd=ROOT, env=os.environ | QUICK) for n in COUNTS))
    return {count: dict(np.load(folder / f"{count}.npz")) for count in COUNTS}


def test_four_devices_fit_to_the_bits_of_one(found):
    one, four = found[1], found[4]
    assert (one["devices"], four["devices"]) == (1, 4)
    leaves = [name for name in one if name.startswith("leaf")]
    assert len(leaves) == 6
    for name in (*leaves, "psnr"):
        assert np.array_equal(one[name], four[name]), name
    # One device fits them one after the other: the mean over identities is taken of other parts.
    assert np.allclose(one["losses"], four["losses"], rtol=1e-6)


def test_devices_that_share_the_views_of_one_head_find_the_bits_of_one(found):
    for name in ("evidence", "rows", "channels", "depth", "first"):
        assert np.isfinite(found[1][name]).all()
        assert np.array_equal(found[1][name], found[4][name]), name
    assert found[4]["working"] == 3, "a block for each of three devices"


def test_no_device_talks_to_another_and_none_works_more(found):
    assert found[4]["collectives"] == 0
    for what in ("flops", "bytes"):
        assert found[4][what] == pytest.approx(found[1][what], rel=0.01), what
        assert found[4][what] > 0
