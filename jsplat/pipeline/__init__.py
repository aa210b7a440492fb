"""Verbs strung together: every stage reads folders and writes a folder with run.json."""

from jsplat.pipeline.config import DemoConfig, RunConfig
from jsplat.pipeline.run import demo, run, train_teacher, write_people

__all__ = ["DemoConfig", "RunConfig", "demo", "run", "train_teacher", "write_people"]
