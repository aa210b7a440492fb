"""What a training step of the parser is compiled for, and how far it goes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jsplat.parser import TeacherConfig
from jsplat.parser import train as training

CONFIG = TeacherConfig(label_size=32)


def test_a_step_is_that_of_adamw_on_a_warm_up_and_a_cosine():
    config = dataclasses.replace(CONFIG, steps=20, warmup=4, learning_rate=0.1, weight_decay=0.5, clip_norm=0.7)
    weights = {"a.conv.kernel": jnp.array([1.0, -2.0]), "b.bn.scale": jnp.array([3.0])}
    random, paces = np.random.default_rng(0), training.paces(config)
    schedule = optax.warmup_cosine_decay_schedule(0.02, 0.1, 4, 20)
    decays = {name: name.endswith("kernel") for name in weights}
    wanted = optax.chain(optax.clip_by_global_norm(0.7), optax.adamw(schedule, weight_decay=0.5, mask=decays))
    ours = training.optimiser(training.StepConfig.of(config))
    state, other, moved = wanted.init(weights), ours.init(weights), weights
    assert len(paces) == 20
    for pace in paces:
        gradient = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), weights)
        updates, state = wanted.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        updates, other = ours.update(gradient, other, moved)
        moved = optax.apply_updates(moved, jax.tree.map(lambda x, rate=pace.rate: -rate * x, updates))
    for name, value in weights.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5)


def test_trainings_of_other_lengths_and_rates_share_a_program():
    other = dataclasses.replace(CONFIG, steps=7, learning_rate=1e-4, warmup=1, ema_decay=0.5, save_every=1.0)
    assert training.StepConfig.of(other) == training.StepConfig.of(CONFIG)
    assert hash(training.StepConfig.of(other)) == hash(training.StepConfig.of(CONFIG))
    assert training.StepConfig.of(dataclasses.replace(CONFIG, label_size=16)) != training.StepConfig.of(CONFIG)
