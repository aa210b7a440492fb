"""Which kernels a call launches and how long each takes, from the trace of JAX's profiler."""

import collections
import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

CALLS = 3
SHOWN = 40


def kernels_of(call: Callable[[], Any]) -> dict[str, Any]:
    """Milliseconds and launches of a call, in all and by kernel, the longest first; the mean of a few calls."""
    call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                call()
        paths = Path(folder).rglob("*.trace.json.gz")
        events = [e for path in paths for e in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]]
    return summed(events, CALLS)


def summed(events: list[dict[str, Any]], calls: int) -> dict[str, Any]:
    """Of the events of a trace: what ran on GPUs, or, where there is none, XLA's operations on the processor."""
    named = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    streams = {
        (e["pid"], e["tid"])
        for e in events
        if e.get("name") == "thread_name" and "GPU" in named.get(e["pid"], "") and "Stream" in e["args"]["name"]
    }
    spans = [e for e in events if e.get("ph") == "X"]
    on_gpu = [e for e in spans if (e["pid"], e["tid"]) in streams]
    times, counts = collections.Counter[str](), collections.Counter[str]()
    for event in on_gpu or [e for e in spans if "hlo_op" in e.get("args", {})]:
        times[event["name"]] += event["dur"] / 1e3 / calls
        counts[event["name"]] += 1
    longest = {name: [round(ms, 4), counts[name] / calls] for name, ms in times.most_common(SHOWN)}
    return {"ms": sum(times.values()), "launches": sum(counts.values()) / calls, "kernels": longest}
