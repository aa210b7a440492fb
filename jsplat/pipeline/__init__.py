"""Verbs strung together: every stage reads folders and writes a folder with run.json."""

from jsplat.pipeline.config import DemoConfig, RunConfig
from jsplat.pipeline.parsers import train_teacher
from jsplat.pipeline.people import demo, write_people
from jsplat.pipeline.run import foretell, run
from jsplat.pipeline.settling import Request

__all__ = ["DemoConfig", "Request", "RunConfig", "demo", "foretell", "run", "train_teacher", "write_people"]
