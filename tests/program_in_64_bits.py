"""Somebody's program with JAX's 64-bit types: every verb, once and small. Writes their names to a file."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jsplat import capacity_for, rasterize
from jsplat.fitting import FitConfig, fit
from jsplat.labels import SharpenConfig, VoteConfig, confidence, facing, lift, paint, sharpen, vote
from jsplat.parser import TeacherConfig, predict, predict_labels, train_parser
from jsplat.training_sets.auxiliary import AuxiliarySet
from tests import ball

jax.config.update("jax_enable_x64", True)


names = []


def told(name: str, result: object) -> None:
    """What came has 32 bits, and is finite."""
    numbers = [np.asarray(x) for x in jax.tree.leaves(result)]
    assert all(x.dtype != np.float64 and np.isfinite(x).all() for x in numbers), (name, [x.dtype for x in numbers])
    names.append(name)


capture, heads = ball.capture(), ball.gaussians()
cameras, views = capture.cameras, len(capture.images)
pictures = np.eye(3)[np.asarray(capture.labels)]  # float64, as numpy makes it
capacity = capacity_for(heads, cameras)

config = FitConfig(gaussians=200, steps=2, steps_per_call=2, relocate_every=2, voxels=16, label_weight=0.1)
fitted = fit([capture], config)
told("fit", fitted.scene)
told("rasterize", jax.grad(lambda x: rasterize(heads, x, cameras[0]).channels.sum())(jnp.ones((200, 2), jnp.float32)))

evidence, weight = lift(heads, cameras, pictures, capacity=capacity)
told("lift", (evidence, weight))
yaw = np.linspace(-180, 135, views)
table = vote(evidence, weight, jnp.asarray(yaw), jnp.zeros(views), VoteConfig(method="best"), facing(heads, cameras))
told("vote", (table, confidence(table)))
table = sharpen(heads, table, cameras, pictures, jnp.ones(views), capacity=capacity, config=SharpenConfig(rounds=1))
told("sharpen", table)
told("paint", paint(heads, table, cameras, capacity=capacity).channels)

small = dataclasses.replace(TeacherConfig(), width=0.125, input_size=32, label_size=32, steps=2, batch=2, log_every=1)
zeros = np.zeros(views)
data = AuxiliarySet(
    np.asarray(capture.images),
    np.asarray(capture.labels),
    zeros + 1,
    ("a",) * views,
    zeros,
    zeros,
    ("photo",) * views,
    ball.SIDES,
)
parser, history = train_parser(data, small, 0)
told("train_parser", parser.variables)
told("predict", predict(parser, capture.images, 4))
told("predict_labels", predict_labels(parser, capture.images, 4))
Path(sys.argv[1]).write_text(" ".join(sorted(names)))
