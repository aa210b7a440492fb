"""What one set of masks says otherwise than another of the same pictures, where nobody knows the truth."""

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.metrics.classes import confusion
from jsplat.metrics.masks import BINS, pose_bins


class Changes:
    """Counts of pixels by class before and after, and how sure the masks are, by head pose; one person at a time."""

    def __init__(self, labelset: LabelSet):
        k = len(labelset)
        self.labelset, self.people = labelset, 0
        self._n = np.zeros(len(BINS), np.int64)
        self._moved = np.zeros((len(BINS), k, k), np.int64)  # class before, class after
        self._sure = np.zeros((len(BINS), k))  # sums of confidence, by class after

    def add(
        self,
        before: UInt8[np.ndarray, "v h w"],
        after: UInt8[np.ndarray, "v h w"],
        confidence: Float[np.ndarray, "v h w"],
        yaw: Float[np.ndarray, " v"],
        pitch: Float[np.ndarray, " v"],
    ) -> None:
        """Counts the pictures of one person; a pixel that is IGNORE before or after counts nowhere.

        Args:
            confidence: of `after`, in [0, 1].
            yaw, pitch: where the camera stands in the head frame, degrees.
        """
        k, places = len(self.labelset), np.stack([*pose_bins(yaw, pitch).values()], 1)
        self.people += 1
        for old, new, sure, bins in zip(before, after, confidence, places):
            told = (old != IGNORE) & (new != IGNORE)
            self._n[bins] += 1
            self._moved[bins] += confusion(new[told][None], old[told][None], k)[:, :k]
            self._sure[bins] += np.bincount(new[told], sure[told].astype(float), minlength=k)

    def found(self) -> dict:
        """What is known of all pictures, in [0, 1]; None where there is nothing to tell.

        Returns:
            {"people": how many, "bins": {bin: {"n": pictures, "changed": share of the pixels that are foreground before
            or after, "confidence": mean where they are foreground after}}, "classes" and "classes_side": {class:
            {"before", "after": share of all pixels, "kept": share of those before, "to", "from": [the class that most
            of the lost go to, or of the won come from, its share of them] or None, "confidence"}}} for classes that
            occur.
        """
        rows = {}
        for name, n, moved, sure in zip(BINS, self._n.tolist(), self._moved, self._sure):
            seen, after = moved.sum() - moved[0, 0], moved[:, 1:].sum()
            changed = _fraction(seen - np.trace(moved[1:, 1:]), seen)
            rows[name] = {"n": n, "changed": changed, "confidence": _fraction(sure[1:].sum(), after)}
        matrices = dict(zip(BINS, zip(self._moved, self._sure)))
        classes = {"classes": self._classes(*matrices["all"]), "classes_side": self._classes(*matrices["side"])}
        return {"people": self.people, "bins": rows, **classes}

    def _classes(self, moved: np.ndarray, sure: np.ndarray) -> dict[str, dict]:
        total, rows = moved.sum(), {}
        for i, name in enumerate(self.labelset.names):
            before, after, kept = moved[i].sum(), moved[:, i].sum(), moved[i, i]
            if before + after:
                rows[name] = {
                    "before": _fraction(before, total),
                    "after": _fraction(after, total),
                    "kept": _fraction(kept, before),
                    "to": self._most(moved[i], i),
                    "from": self._most(moved[:, i], i),
                    "confidence": _fraction(sure[i], after),
                }
        return rows

    def _most(self, counts: np.ndarray, own: int) -> list | None:
        others = np.where(np.arange(len(counts)) == own, 0, counts)
        return [self.labelset.names[others.argmax()], _fraction(others.max(), others.sum())] if others.any() else None


def _fraction(part: float | np.integer | np.floating, whole: float | np.integer | np.floating) -> float | None:
    return float(part / whole) if whole else None
