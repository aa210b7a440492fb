"""What a training step takes, from a few of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jsplat.parser.model import Parser
from jsplat.parser.train import ParserConfig, Pool, StepConfig, draw_batch, first_state, paces, train_step
from jsplat.runtime.cost import Cost, cost_of
from jsplat.runtime.devices import batch_mesh, replicate, replicated
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.programs import planned_bytes
from jsplat.training_sets.auxiliary import AuxiliarySet, squared


@dataclasses.dataclass(frozen=True)
class TriedTraining:
    """Some steps of a training.

    Attributes:
        step: cost of one, without what compiling takes.
        memory: bytes of each device, without the training sets.
    """

    step: Cost
    memory: int


@in_32_bits
def compile_training(start: Parser, config: ParserConfig, side: int) -> None:
    """Compiles the step of a training that is yet to come, so that it starts at once.

    Args:
        start: a parser of the network that will be trained.
        side: of the pictures, the longer one, in pixels.
    """
    config, mesh = config.for_side(side, start.architecture.input_size), batch_mesh()
    count, classes, where = config.batch, len(start.labelset), replicated(mesh)
    shape = (count, side, side)

    def arrays():
        batch = Pool(jnp.zeros((*shape, 3), jnp.uint8), jnp.zeros(shape, jnp.uint8), jnp.zeros(count))
        tables = jnp.zeros(classes, jnp.int32), jnp.zeros(classes)
        return first_state(start, config), jax.random.key(0), batch, *tables

    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), jax.eval_shape(arrays))
    how = paces(config)[0], StepConfig.of(config), start.architecture, mesh
    train_step.lower(*given, *how).compile()


@in_32_bits
def try_training(start: Parser, data: AuxiliarySet, config: ParserConfig, seed: int = 0) -> TriedTraining:
    """Fine-tunes a parser for three steps on some of the pictures, to see what it takes; `start` stays as it is.

    The program is that of `train_parser` with these settings on pictures of this size, and is in the cache afterwards.
    """
    config, mesh = config.for_side(max(data.images.shape[1:3]), start.architecture.input_size), batch_mesh()
    shown, state = squared(data), replicate(first_state(start, config), mesh)
    labelset = start.labelset
    pool = Pool(*map(jnp.asarray, (shown.images, shown.labels, shown.weights)))
    tables = jnp.asarray(labelset.mirror_ids), jnp.ones(len(labelset))
    (pool,), key, tables = replicate(((pool,), jax.random.key(seed), tables), mesh)
    batch, rest = draw_batch(key, jnp.int32(0), (pool,), (config.batch,), mesh)
    how = (rest, batch, *tables, paces(config)[0], StepConfig.of(config), start.architecture, mesh)

    def step() -> None:
        nonlocal state
        state, loss = train_step(state, *how)
        np.asarray(loss)

    step()
    step()
    cost = cost_of(step)
    return TriedTraining(cost, planned_bytes(train_step.lower(state, *how).compile()))
