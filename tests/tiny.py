"""Settings of the smallest run that has every stage."""

from pathlib import Path

TINY = Path(__file__).parent.parent / "configs" / "tiny.toml"
SETTINGS = TINY.read_text(encoding="utf-8")
