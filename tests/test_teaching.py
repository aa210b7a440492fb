"""What a run keeps of the variants that a student saw."""

import numpy as np

from jsplat.labelsets.labelset import IGNORE
from jsplat.pipeline.teaching import SHOWN, some_variants
from jsplat.training_sets.auxiliary import AuxiliarySet, from_captures
from tests import ball


class Mixed:
    """Upright pictures and wide ones by turns."""

    fraction, pieces, every, fingerprint = 0.5, 2, 1, "mixed"

    def piece(self, number: int) -> AuxiliarySet:
        whole = from_captures([ball.capture(yaw=[0.0, 40.0])])
        rows = slice(0, 24) if number % 2 else slice(None)
        columns = slice(None) if number % 2 else slice(4, 28)
        return AuxiliarySet(
            whole.images[:, rows, columns], whole.labels[:, rows, columns], whole.weights, whole.identity, whole.yaw,
            whole.pitch, whole.source, whole.labelset,
        )  # fmt: skip


def test_people_with_pictures_of_other_shapes_are_shown_side_by_side():
    images, labels = some_variants(Mixed())
    assert images.shape == (SHOWN, 32, 32, 3)
    assert (labels[0][:, :4] == IGNORE).all()
    assert (labels[1][:4] == IGNORE).all()
    assert not (labels[:2, 8:24, 8:24] == IGNORE).any()
    assert not np.array_equal(images[0], images[1])
