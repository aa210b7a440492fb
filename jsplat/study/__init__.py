"""The perceptual study: blinded pairs and ratings for people, their answers, and what the answers say."""

from jsplat.study.answers import Answers, read_answers, read_key
from jsplat.study.page import page
from jsplat.study.plan import Item, Photograph, Plan, StudyConfig, plan
from jsplat.study.results import results

__all__ = [
    "Answers",
    "Item",
    "Photograph",
    "Plan",
    "StudyConfig",
    "page",
    "plan",
    "read_answers",
    "read_key",
    "results",
]
