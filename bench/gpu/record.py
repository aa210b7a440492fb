"""What came out of all parts, on disk from the moment it is there: JSON, a page to read, lines for bench/history."""

import json
from pathlib import Path
from typing import Any

from bench.gpu.parts import KERNELS, PHOTO_LOSS, STEPS

DONE = ("passed", "failed", "crashed", "hung")  # a part has been tried; "skipped" ones have not
BAD = DONE[1:]


def write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class Record:
    """The results in a folder: summary.json, summary.txt, bench.jsonl, log.txt.

    Args:
        out: the folder; made if it is not there.
        earlier: what summary.json of an earlier call held: its parts count as done.
    """

    def __init__(self, out: Path, earlier: dict[str, Any] | None = None):
        self.out = out
        self.parts: dict[str, dict[str, Any]] = dict((earlier or {}).get("parts", {}))
        self.seconds, self.total, self.ended = 0.0, 0.0, False
        out.mkdir(parents=True, exist_ok=True)

    def done(self) -> set[str]:
        """Parts that have been tried."""
        return {name for name, part in self.parts.items() if part["status"] in DONE}

    def broken(self) -> dict[str, str]:
        """Kernels that step (a) found broken, and how: later steps take the next implementation."""
        found = {}
        for kernel in (*KERNELS, PHOTO_LOSS):
            bad = [f"{n}: {p['status']}" for n, p in self.parts.items() if n.startswith(f"a.{kernel}.") and is_bad(p)]
            if bad:
                found[kernel] = ", ".join(bad)
        return found

    def keep(self, name: str, log: str = "", **result: Any) -> None:
        """A part's result, or what of it is there so far, and what it printed."""
        device = self.parts.get("about", {}).get("values", {}).get("device")
        self.parts[name] = result | ({"device": device} if device else {})  # calls may meet different ones
        if log:
            with (self.out / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"== {name}: {result['status']}\n{log.rstrip()}\n")
        self.save()

    def save(self) -> None:
        """Writes everything."""
        lines = [line for part in self.parts.values() for line in part.get("values", {}).get("lines", [])]
        whole = {"seconds": round(self.seconds, 1), "of": self.total, "ended": self.ended, "broken": self.broken()}
        write(self.out / "summary.json", json.dumps({**whole, "parts": self.parts}, indent=1) + "\n")
        write(self.out / "summary.txt", self.text())
        write(self.out / "bench.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def text(self) -> str:
        """The page to read."""
        states = [part["status"] for part in self.parts.values()]
        counts = ", ".join(f"{states.count(s)} {s}" for s in (*DONE, "skipped", "running") if s in states)
        rows = [f"gpu_check: {counts or 'nothing ran'}; {self.seconds:.0f} of {self.total:.0f} s"]
        rows += [f"not used: {kernel} ({why})" for kernel, why in self.broken().items()]
        step = None
        for name, part in self.parts.items():
            if name.partition(".")[0] != step:
                step = name.partition(".")[0]
                rows += ["", f"({step}) {STEPS.get(step, '')}"]
            took = f"{part['seconds']:.0f} s" if "seconds" in part else ""
            rows.append(f"  {name:24} {part['status']:8} {took:>6}  {shown(part)}".rstrip())
            rows += [f"      {line}" for line in part.get("stack", [])[:12]]
        return "\n".join(rows) + "\n"


def is_bad(part: dict[str, Any]) -> bool:
    """Whether it was tried and did not pass."""
    return part["status"] in BAD


def shown(part: dict[str, Any]) -> str:
    """Why it did not pass, then its numbers and short texts."""
    values = dict(part.get("values", {}))
    lines = values.pop("lines", [])
    rows = [f"{line['name']} {_number(line['value'])} {line['unit']}" for line in lines if line["value"] is not None]
    rows += [f"{line['name']}: {line['skipped'] or line['error']}" for line in lines if line["value"] is None]
    short = (key for key, x in values.items() if isinstance(x, int | float | str) and len(str(x)) < 60)
    rows += [f"{key} {_number(values[key])}" for key in short if key != "skipped"]
    return "; ".join([part["why"], *rows] if part.get("why") else rows)


def _number(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)
