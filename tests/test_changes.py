"""What the vote changed, counted without truth, and told on the report's page."""

import re

import numpy as np
import pytest

from jsplat.labelsets.labelset import CELEBAMASK_HQ as LABELS
from jsplat.labelsets.labelset import IGNORE
from jsplat.metrics.changes import Changes
from jsplat.report.gallery import Pictures
from jsplat.report.page import write_report


def test_what_the_vote_changed_is_told_by_pose_and_class(tmp_path):
    changes = Changes(LABELS)
    before = np.asarray([[[1, 1, 1, 0]], [[1, 1, 17, IGNORE]]], np.uint8)
    after = np.asarray([[[1, 1, 17, 0]], [[17, 17, 17, 3]]], np.uint8)
    sure = np.asarray([[[1.0, 0.5, 0.0, 0.9]], [[0.6, 0.6, 0.6, 0.9]]], np.float32)
    changes.add(before, after, sure, np.asarray([0.0, 90.0]), np.zeros(2))
    found = changes.found()
    assert found["people"] == 1
    assert found["bins"]["0-15"] == {"n": 1, "changed": pytest.approx(1 / 3), "confidence": pytest.approx(0.5)}
    assert found["bins"]["side"] == {"n": 1, "changed": pytest.approx(2 / 3), "confidence": pytest.approx(0.6)}
    assert found["bins"]["45-75"] == {"n": 0, "changed": None, "confidence": None}
    assert found["classes"]["skin"]["kept"] == pytest.approx(2 / 5)
    assert found["classes"]["skin"]["to"] == ["hair", 1.0]
    assert found["classes_side"]["hair"] == {
        "before": pytest.approx(1 / 3),
        "after": 1.0,
        "kept": 1.0,
        "to": None,
        "from": ["skin", 1.0],
        "confidence": pytest.approx(0.6),
    }
    assert "l_brow" not in found["classes"], "IGNORE says nothing"
    report = {"vote": found, "notes": ["WITHOUT <REPLAY>"]}
    write_report(tmp_path, report, Pictures(LABELS), {})
    text = re.sub(r"<[^>]*>", " ", (tmp_path / "report.html").read_text())
    assert "The vote changed 50.0 % of the foreground, 66.7 % from the side." in text
    assert "WITHOUT &lt;REPLAY&gt;" in text
    assert "hair  100 %" in text
