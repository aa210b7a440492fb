"""A person in the loop: edits of masks as evidence in the vote, a queue of what to look at, and a local page."""

from jsplat.edit.evidence import Outcome, edit, edit_all
from jsplat.edit.head import UNTOUCHED, EditConfig, Head, Settings, prepare
from jsplat.edit.kept import check_votes, voted_labels
from jsplat.edit.queue import Looks, QueueConfig, expected_gains, rank
from jsplat.edit.server import Server
from jsplat.edit.session import Ready, Session, Sight, Source
from jsplat.edit.simulate import SimulationConfig, Subject, simulate

__all__ = [
    "UNTOUCHED",
    "EditConfig",
    "Head",
    "Looks",
    "Outcome",
    "QueueConfig",
    "Ready",
    "Server",
    "Session",
    "Settings",
    "Sight",
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
