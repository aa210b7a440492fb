"""Matrices of other people: what a refused one is said to be."""

import cv2
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.files.json_fields import rigid

POSE = np.eye(4)
POSE[:3, :3] = cv2.Rodrigues(np.asarray([0.3, -0.9, 0.4]))[0]
POSE[:3, 3] = 1, 2, 3


def changed(rotation: np.ndarray) -> list:
    return np.block([[rotation, POSE[:3, 3:]], [POSE[3:]]]).tolist()


@pytest.mark.parametrize("value", [POSE.tolist(), POSE[:3].tolist(), np.round(POSE, 3).tolist()])
def test_rigid_transforms(value):
    got = rigid(value, "here")
    assert got.shape == (4, 4)
    assert np.abs(got - POSE).max() <= 5e-4


BAD = {
    "scaled": (changed(1.01 * POSE[:3, :3]), r"a rotation scaled by 1.01: \[\[.*; divide its 3x3 part by that$"),
    "small": (changed(0.25 * POSE[:3, :3]), r"a rotation scaled by 0.25: "),
    "rounded": (
        changed(np.round(POSE[:3, :3], 2)),
        r"a rotation that is off by 0.00\d+, as after rounding: .*; write 3 decimals or more$",
    ),
    "stretched": (changed(POSE[:3, :3] * [1, 1, 1.5]), r"one that stretches by 1 to 1.5"),
    "mirrored": (changed(POSE[:3, :3] * [1, 1, -1]), r"one that mirrors: .*; swap or negate an axis$"),
    "flat": (changed(np.zeros((3, 3))), r"one without a rotation"),
    "endless": (changed(np.full((3, 3), 1e300)), r"endless numbers"),
    "projective": ([*POSE[:3].tolist(), [0, 0, 1, 0]], r"one whose last row is not 0 0 0 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_refused_matrix_is_described(name):
    value, message = BAD[name]
    with pytest.raises(InputError, match=f"^here: wanted a rigid transform, got {message}"):
        rigid(value, "here")
