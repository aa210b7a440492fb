"""The part that a process runs: its sizes, and what it tells."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from bench.gpu.record import write


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the workloads: Gaussians, pixels of an edge, channels; the fit's people, views, pixels and steps."""

    count: int = 50_000
    edge: int = 512
    channels: int = 22
    people: int = 32
    fit_count: int = 20_000
    fit_edge: int = 128
    views: int = 24
    steps: int = 300


SMALL = Sizes(40, 24, 3, 2, 40, 16, 4, 2)


class Part:
    """The part that runs in this process: what it was given, and what it tells."""

    def __init__(self, given: argparse.Namespace):
        self.name, self.rehearse, self.sizes = given.name, given.rehearse, SMALL if given.rehearse else Sizes()
        self._path: Path = given.values
        self._values: dict[str, Any] = {}
        self.earlier = json.loads(given.earlier.read_text()) if given.earlier.is_file() else {"parts": {}, "broken": {}}

    def tell(self, **values: Any) -> None:
        """Writes them, beside what was told before; "lines" are added to."""
        lines = self._values.get("lines", []) + values.pop("lines", [])
        self._values |= values | ({"lines": lines} if lines else {})
        write(self._path, json.dumps(self._values))
