"""What was measured, read back: the latest line of every measurement on every device."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent


def latest(history: Path = HERE / "history", baseline: Path = HERE / "baseline") -> dict[str, dict[str, dict]]:
    """Device -> name of the measurement -> its latest line that has a value, else its latest line.

    The history counts; what only the baseline has (`baseline/<device>.json`) is taken from there.
    """
    found: dict[str, dict[str, dict]] = {}
    for path in sorted(baseline.glob("*.json")):
        lines = json.loads(path.read_text())
        if all(isinstance(line, dict) and "suite" in line for line in lines.values()):  # another tool's lie beside ours
            found[path.stem] = lines
    for path in sorted(history.glob("*.jsonl")):
        own = found.setdefault(path.stem, {})
        for text in path.read_text().splitlines():
            line = json.loads(text)
            old = own.get(line["name"])
            if line["value"] is not None or old is None or old["value"] is None:
                own[line["name"]] = line
    return found
