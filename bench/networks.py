"""BiSeNet workloads made ready: ours in flax, the peer in PyTorch, with the same weights and the same losses."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.peers import need, torch, torch_bisenet, torch_call
from bench.raster import relative_error
from bench.timing import Job, compiled
from bench.workloads import Network, Product
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.parser import Architecture, new_parser
from jsplat.parser.loss import HARD, ohem, pixel_loss
from jsplat.parser.model import is_statistic, variables, with_variables
from jsplat.parser.resize import logits_to_pixels

CLASSES = len(CELEBAMASK_HQ)
LEAST = 1 / 16  # of OHEM
RATE = 1e-3
SAME_LOGIT, SAME_LABEL = 1e-3, 0.9999  # what float32 must agree to before anything is timed
SAME_LABEL_BF16 = 0.97  # three digits: pixels between two classes change sides


def prepare(work: Network) -> Job:
    """A job whose logits (inference) or first loss (training) are those of the other framework."""
    call, right, more = (_ours if work.implementation == "jsplat" else _theirs)(work)
    return Job(call, right, floor=_floor(_architecture(work), work.batch, work.edge, work.training), **more)


def prepare_product(work: Product) -> Job:
    """A job that multiplies two matrices; in bfloat16 where the mode says so."""
    floor = {"operations": 2.0 * work.edge**3, "bytes": 3.0 * 4 * work.edge**2}
    left, right = np.random.default_rng(0).normal(size=(2, work.edge, work.edge)).astype(np.float32)
    words = work.mode.split(", ")
    if work.implementation == "jsplat":
        a, b = jnp.asarray(left), jnp.asarray(right)
        multiply, _ = compiled(functools.partial(jnp.matmul, precision="highest"), a, b)
        call = lambda: jax.block_until_ready(multiply(a, b))  # noqa: E731
        found = np.asarray(call())
    else:
        need("torch", cuda="cuda" in words)
        device = "cuda" if "cuda" in words else "cpu"
        kind = torch.bfloat16 if "bf16" in words else torch.float32
        a, b = (torch.tensor(x).to(device, kind) for x in (left, right))
        call = torch_call(words, lambda: a @ b)
        found = call().float().cpu().numpy()
    error = relative_error(found, left.astype(np.float64) @ right)
    if error > (1e-2 if "bf16" in words else 1e-5):
        raise ValueError(f"matrix product off by {error}")
    return Job(call, {"relative_error": error}, floor=floor)


@functools.lru_cache
def _floor(architecture: Architecture, batch: int, edge: int, training: bool) -> dict[str, float]:
    """Operations as XLA counts them in the forward pass (training: three times those); weights, pictures and logits."""
    values, pictures = _weights(architecture), jnp.asarray(_pictures(batch, edge)[0])
    cost = jax.jit(functools.partial(_logits, architecture=architecture)).lower(values, pictures).cost_analysis()
    passes = 3 if training else 1
    kept = sum(x.size for x in values.values()) * passes + pictures.size + batch * edge**2 * CLASSES
    return {"operations": passes * float(cost["flops"]), "bytes": 4.0 * kept}


def _architecture(work: Network) -> Architecture:
    return Architecture(work.depth, work.width, work.edge)


@functools.lru_cache(maxsize=2)
def _weights(architecture: Architecture):
    """Variables with uneven batch statistics, so that a mapping that confuses them is found."""
    random = np.random.default_rng(0)
    values = dict(new_parser(architecture, CELEBAMASK_HQ, 0).variables)
    for name, value in values.items():
        if name.endswith(("var", "scale")):
            values[name] = jnp.asarray(random.uniform(0.5, 1.5, value.shape), jnp.float32)
        elif name.endswith(("mean", "bias")):
            values[name] = jnp.asarray(random.normal(0, 0.1, value.shape), jnp.float32)
    return values


@functools.lru_cache(maxsize=2)
def _pictures(batch: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised RGB `b h w 3` and labels `b h w`."""
    random = np.random.default_rng(1)
    coarse, block = (batch, edge // 16, edge // 16), np.ones((1, 16, 16), np.uint8)
    smooth = np.kron(random.normal(size=(*coarse, 3)), block[..., None])
    smooth += 0.3 * random.normal(size=(batch, edge, edge, 3))
    labels = np.kron(random.integers(0, CLASSES, coarse), block)
    return smooth.astype(np.float32), labels.astype(np.uint8)


def _logits(values, pictures, architecture: Architecture):
    side = pictures.shape[1:3]
    return logits_to_pixels(with_variables(architecture, CLASSES, values)(pictures), side, side, side)


def _loss(weights, statistics, pictures, labels, architecture: Architecture):
    model = with_variables(architecture, CLASSES, weights | statistics)
    side, valid = pictures.shape[1:3], jnp.ones(labels.shape)
    heads = [logits_to_pixels(x, side, side, side) for x in model.training_logits(pictures)]
    loss = sum(ohem(pixel_loss(x, labels), valid, HARD, LEAST) for x in heads)
    return loss, _parts(variables(model))[1]


def _parts(values):
    """The weights, and the statistics of the batches."""
    statistics = {name: value for name, value in values.items() if is_statistic(name)}
    return {name: value for name, value in values.items() if name not in statistics}, statistics


def _ours(work: Network):
    architecture, values = _architecture(work), _weights(_architecture(work))
    pictures, labels = map(jnp.asarray, _pictures(work.batch, work.edge))
    if not work.training:
        run, more = compiled(functools.partial(_logits, architecture=architecture), values, pictures)
        return lambda: jax.block_until_ready(run(values, pictures)), {}, more
    adam = optax.adamw(RATE)
    weights, statistics = _parts(values)

    def advance(weights, statistics, moments):
        (loss, statistics), gradients = jax.value_and_grad(_loss, has_aux=True)(
            weights, statistics, pictures, labels, architecture
        )
        updates, moments = adam.update(gradients, moments, weights)
        return optax.apply_updates(weights, updates), statistics, moments, loss

    state = [jax.tree.map(jnp.array, x) for x in (weights, statistics, adam.init(weights))]
    program, more = compiled(advance, *state, donate_argnums=(0, 1, 2))

    def step() -> float:
        *state[:], loss = program(*state)
        return float(loss)

    return step, {"loss": step()}, more


@functools.lru_cache(maxsize=2)
def _our_answer(work: Network):
    """Our logits, or our first loss."""
    call, right, _ = _ours(work)
    return right["loss"] if work.training else np.asarray(call())


def _theirs(work: Network):
    """The PyTorch network; mode: words out of "N threads", "cuda", "channels_last", "bf16", "compiled"."""
    words = work.mode.split(", ")
    need("torch", cuda="cuda" in words)
    device = "cuda" if "cuda" in words else "cpu"
    architecture = _architecture(work)
    network = torch_bisenet.bisenet(architecture, CLASSES)
    torch_bisenet.load(network, _weights(architecture), architecture, CLASSES)
    layout = torch.channels_last if "channels_last" in words else torch.contiguous_format
    network = network.to(device, memory_format=layout).train(work.training)
    pictures, labels = _pictures(work.batch, work.edge)
    shown = torch.tensor(pictures).permute(0, 3, 1, 2).contiguous().to(device, memory_format=layout)
    wanted = torch.tensor(labels).long().to(device)
    forward = torch.compile(network) if "compiled" in words else network
    adam = torch.optim.AdamW(network.parameters(), RATE, fused=True)

    automatic = functools.partial(torch.autocast, device, torch.bfloat16, enabled="bf16" in words)

    def infer():
        with torch.inference_mode(), automatic():
            return forward(shown)

    def train():
        adam.zero_grad(set_to_none=True)
        with automatic():
            heads = forward(shown)
        loss = sum(torch_bisenet.ohem(head.float(), wanted, HARD, LEAST) for head in heads)
        loss.backward()
        adam.step()
        return loss.detach()

    call = torch_call(words, train if work.training else infer)
    begin = time.perf_counter()
    result = call()
    more = {"compile_seconds": time.perf_counter() - begin} if "compiled" in words else {}
    return call, _agree(work, result.float().cpu().numpy(), "bf16" in words), more


def _agree(work: Network, result: np.ndarray, short: bool) -> dict[str, float]:
    """How well the peer's first result is ours; raises when it is not the same network."""
    ours = _our_answer(work.ours())
    if work.training:
        found = {"loss": float(result), "relative_error": abs(float(result) - ours) / abs(ours)}
        good = found["relative_error"] < (5e-2 if short else 1e-4)
    else:
        found = {"logit_error": float(np.abs(result - ours).max())}
        found["same_label"] = float((result.argmax(1) == ours.argmax(1)).mean())
        good = found["same_label"] >= (SAME_LABEL_BF16 if short else SAME_LABEL)
        good &= short or found["logit_error"] <= SAME_LOGIT
    if not good:
        raise ValueError(f"not the same network: {found}")
    return found
