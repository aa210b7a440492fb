"""Procedural people: random heads with exact labels and depth, photographed by near-frontal or dome rigs."""

from jsplat.synthetic.person import PeopleConfig, Person, make_head
from jsplat.synthetic.rigs import HeadsConfig, capture_rig, frontal_rig, render_captures
from jsplat.synthetic.trace import View, render_head

__all__ = [
    "HeadsConfig",
    "PeopleConfig",
    "Person",
    "View",
    "capture_rig",
    "frontal_rig",
    "make_head",
    "render_captures",
    "render_head",
]
