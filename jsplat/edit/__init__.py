"""A person in the loop: edits of masks as evidence in the vote, a queue of what to look at, and a local page."""

from jsplat.edit.edits_on_disk import check_votes, voted_labels
from jsplat.edit.evidence import Outcome, edit, edit_all
from jsplat.edit.head import UNTOUCHED, EditConfig, Head, Settings, prepare
from jsplat.edit.queue import QueueConfig, QueueInputs, expected_gains, rank
from jsplat.edit.server import Server
from jsplat.edit.session import HeadViews, Ready, Session, Source
from jsplat.edit.simulate import SimulationConfig, Subject, simulate

__all__ = [
    "UNTOUCHED",
    "EditConfig",
    "Head",
    "HeadViews",
    "Outcome",
    "QueueConfig",
    "QueueInputs",
    "Ready",
    "Server",
    "Session",
    "Settings",
    "SimulationConfig",
    "Source",
    "Subject",
    "check_votes",
    "edit",
    "edit_all",
    "expected_gains",
    "prepare",
    "rank",
    "simulate",
    "voted_labels",
]
