"""The tables and plots of README.md, docs and bench/README.md, as text, from the measurements alone."""

from collections.abc import Iterable, Mapping

from bench.scaling import AXES, axis_points, cost, laws
from bench.workloads import LIMITS, PEAK_BYTES, PEAK_OPERATIONS, SUITES
from jsplat.report.figures import line_file

NOT_MEASURED = "not measured"
IMPLEMENTATIONS = {"jsplat": "jsplat", "torch": "plain PyTorch", "gsplat": "gsplat 1.5.3"}
FITS = {"two_models": "two models in a loop, PyTorch", "xla": "jsplat on XLA's loop"}
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37")
QUIET = 0.75  # load per core above which a machine has other work to do
MANY = (1_000, 100_000)  # identities
GOAL = ["ratio of times", "device", "median (best rounds)", "processor time", "goal", "met", "IQR", "what was compared"]
TIMES = ["workload", "median ms", "best ms", "IQR", "images/s", "memory, MB", "compile, s", "floor"]
LIMIT = ["512x512, 50,000 Gaussians, 22 channels", "device", "measured", "goal", "met"]
LAWS = ["implementation", "against", "exponent of time", "of memory", "points"]
COSTS = ["fit", "identities an hour", *(f"hours for {n:,}" for n in MANY), "load of the machine"]

Devices = Mapping[str, Mapping[str, dict]]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def number(value: float | None, form: str) -> str:
    """A number in a table, or a dash."""
    return "-" if value is None else format(value, form)


def _found(devices: Devices, name: str, kind: str) -> list[tuple[str, dict]]:
    """Device and line of all who measured it; else one line without a value, for this kind of device."""
    return [(d, lines[name]) for d, lines in devices.items() if name in lines] or [(kind, {"value": None})]


def why_not(line: dict) -> str:
    """Why a measurement has no value."""
    if line.get("skipped"):
        return f"{NOT_MEASURED}: {line['skipped']}"
    return f"failed: {line['error']}" if line.get("error") else NOT_MEASURED


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def _met(line: dict) -> str:
    """Whether a goal is met, by the median and by the best rounds; nothing is judged on a machine with other work.

    A thread that waits for the others at a barrier suffers more from other work than one that takes the next task, so
    that a busy machine favours one library over another.
    """
    if line["value"] is None or line["bound"] is None:
        return "-"
    if (line.get("load") or 0.0) > QUIET * (line.get("cores") or 1):
        return "not judged: busy machine"
    seen = [x for x in (line["value"], line.get("fastest")) if x is not None]
    return _yes(max(seen) <= line["bound"] if line["direction"] == "lower" else min(seen) >= line["bound"])


def goals(devices: Devices) -> str:
    """Every ratio, its goal, and what each kind of device has; GPU suites appear though nobody ran them."""
    wanted = {r.name: r.bound for key, s in SUITES.items() if key != "tiny" for r in s.ratios}
    lines = (line for found in devices.values() for line in found.values())
    measured = {line["name"]: line["bound"] for line in lines if line["unit"] == "x" and line["suite"] != "tiny"}
    rows = []
    for name, bound in {**wanted, **{n: b for n, b in measured.items() if n not in wanted}}.items():
        if name.startswith("scaling"):
            continue
        for device, line in _found(devices, name, "GPU" if name.startswith("gpu") or "x512" in name else "CPU"):
            value = line["value"]
            text = why_not(line) if value is None else f"{value:.3g} ({number(line.get('fastest'), '.3g')})"
            spread = "-" if value is None or line["rounds"] < 2 else f"{line['spread']:.0%}"
            used, note = number(line.get("processor"), ".3g"), line.get("note") or "-"
            rows.append([name, device, text, used, number(bound, "g"), _met(line), spread, note])
    return markdown(GOAL, rows)


BESIDE = {  # ratio in `workloads.py` -> what a stranger calls it
    "cpu train 22: torch over jsplat": "rasterizer, forward and backward, 22 channels",
    "cpu train 22, 8 identities: torch over jsplat": "the same, 8 identities at once",
    "cpu step: torch over jsplat": "a whole training step of the fit",
    "cpu lift of 16 views: torch over jsplat": "labels of 16 views lifted onto the Gaussians",
    "fit of 8, 50 steps: two models over jsplat, same PSNR": "8 heads fitted to the same PSNR, two models in a loop",
    "bisenet inference 4x128: torch over jsplat": "BiSeNet, inference; PyTorch in bfloat16",
    "bisenet training 4x128: torch over jsplat": "BiSeNet, a training step; PyTorch in bfloat16",
    "gpu train 22: gsplat over jsplat": "rasterizer, forward and backward, 22 channels: gsplat",
    "gpu step, 32: gsplat over jsplat": "a training step of 32 identities: gsplat",
}


def peer_ratios(devices: Devices) -> str:
    """README's table: how many times as long the other implementation takes."""
    rows = []
    for name, what in BESIDE.items():
        for device, line in _found(devices, name, "GPU" if name.startswith("gpu") else "CPU"):
            rows.append([what, device, why_not(line) if line["value"] is None else f"{line['value']:.3g}"])
    return markdown(["PyTorch's time over ours", "device", "ratio"], rows)


def times(lines: Mapping[str, dict]) -> str:
    """Milliseconds, memory and accuracy of every workload of one device, besides the scaling ones."""
    rows = []
    for name, line in lines.items():
        if line["unit"] == "x" or name.startswith("scaling") or line["suite"] == "tiny":
            continue
        value, work, floor = line["value"], line.get("work") or {}, line.get("floor") or {}
        if value is None:
            rows.append([name, why_not(line), *["-"] * 6])
            continue
        best = line.get("fastest") or value
        spread = f"{line['spread']:.0%}" if line["rounds"] > 1 else "one round"
        rate = f"{1e3 * work['images'] / value:.3g}" if work.get("kind") == "network" else "-"
        memory = line.get("program_mb") or line.get("memory_mb") or 0.0
        counted = f"{floor['operations'] / 1e9:.2g} Gop, {floor['bytes'] / 1e6:.2g} MB" if floor else "-"
        used = [number(memory if memory >= 1 else None, ".0f"), number(line.get("compile_seconds"), ".1f")]
        rows.append([name, f"{value:.4g}", f"{best:.4g}", spread, rate, *used, counted])
    return markdown(TIMES, rows)


def limits(devices: Devices) -> str:
    """What single workloads must reach on the GPU that the goals are for, and what was measured."""
    rows = []
    for limit in LIMITS:
        for device, line in _found(devices, limit.workload, "GPU"):
            value, floor = line["value"], line.get("floor")
            text, met = why_not(line), "-"
            if value is not None and limit.floor:
                fraction = 1e3 * max(floor["operations"] / PEAK_OPERATIONS, floor["bytes"] / PEAK_BYTES) / value
                text, met = f"{fraction:.3g}", _yes(fraction >= limit.bound)
            elif value is not None:
                text, met = f"{value / limit.each:.3g}", _yes(value / limit.each <= limit.bound)
            rows.append([limit.name, device, text, f"{limit.bound:g}", met])
    return markdown(LIMIT, rows)


def products(lines: Mapping[str, dict]) -> str:
    """How fast the networks multiply beside the matrix products of the same libraries; empty where nobody measured."""
    rows = []
    for name, line in lines.items():
        kind = (line.get("work") or {}).get("kind")
        if kind in ("network", "product") and line["value"] and line.get("floor"):
            operations = line["floor"]["operations"]
            rows.append([name, f"{operations / 1e9:.3g}", f"{operations / line['value'] / 1e6:.0f}"])
    return markdown(["what limits the networks", "Gop", "Gop/s"], rows) if rows else ""


def conditions(lines: Iterable[dict]) -> str:
    """When, from which commits, with what, and how busy the machine was."""
    lines = list(lines)
    days, commits = (sorted({line[key][:end] for line in lines}) for key, end in (("when", 10), ("commit", None)))
    versions: dict[str, set[str]] = {}
    for name, version in (item for line in lines for item in line["versions"].items()):
        versions.setdefault(name, set()).add(version)
    packages = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in versions.items())
    text = f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, commit {', '.join(commits)}; {packages}."
    if sets := {line["instructions"] for line in lines if "instructions" in line}:
        text += f" Instruction set, where it was noted: {', '.join(sorted(sets))}."
    if loads := [line["load"] for line in lines if line.get("load") is not None]:
        text += f" Load average of the machine at the start of a suite: {min(loads):.1f} to {max(loads):.1f}."
    return text


def _no_gpu(devices: Devices) -> bool:
    return not any("gpu" in line["suite"] for lines in devices.values() for line in lines.values())


def performance(devices: Devices, plots: str) -> str:
    """The section of docs/speed.md; `plots` is the folder of the plots as the page links it."""
    parts = [goals(devices), limits(devices)]
    for device, lines in devices.items():
        parts.append(f"**{device}**: {conditions(lines.values())}")
        images = " ".join(f"![{name}]({plots}/{name})" for name in drawings({device: lines}))
        parts += [part for part in (images, products(lines)) if part]
    if _no_gpu(devices):
        parts.append(f"GPU: {NOT_MEASURED}.")
    return "\n\n".join(parts)


def drawings(devices: Devices) -> dict[str, str]:
    """File name -> SVG: time against each axis, and PSNR against seconds, of each device that has them."""
    found = {}
    for device, lines in devices.items():
        for axis, name in AXES.items():
            series = {}
            for implementation, label in IMPLEMENTATIONS.items():
                points = axis_points(lines.values(), axis, implementation)
                if len(points) > 1:
                    series[label] = [(p["work"][axis], p["fastest"]) for p in points]
            if series:
                x_name = "edge of the image, pixels" if axis == "edge" else name
                title = f"ms forward and backward (best round) against {name}"
                found[f"{device}-{axis}.svg"] = line_file(title, x_name, series, COLOURS, log=True)
        curves: dict[str, list[tuple[float, float]]] = {}
        for line in _fits(lines.values()):
            label = (IMPLEMENTATIONS | FITS)[line["work"]["implementation"]]
            curves.setdefault(label, []).append((round(line["value"] / 1e3, 1), line["accuracy"]["psnr"]))
        if curves:
            title = "PSNR in dB against time, all identities"
            found[f"{device}-psnr.svg"] = line_file(title, "seconds", curves, COLOURS)
    return found


def _fits(lines: Iterable[dict]) -> list[dict]:
    return [line for line in lines if (line.get("work") or {}).get("kind") == "fit" and line["value"]]


def workloads(devices: Devices) -> str:
    """bench/README.md's table of every workload."""
    return "\n\n".join(f"**{device}**\n\n{times(lines)}" for device, lines in devices.items()) or f"{NOT_MEASURED}."


def scaling(devices: Devices) -> str:
    """bench/README.md's laws and costs."""
    parts = []
    for device, lines in devices.items():
        rows = []
        for implementation, label in IMPLEMENTATIONS.items():
            for axis, law in laws(list(lines.values()), implementation).items():
                memory = f"{law['memory']:.2f}" if "memory" in law else NOT_MEASURED
                rows.append([label, AXES[axis], f"{law['time']:.2f}", memory, str(law["points"])])
        parts.append(f"**{device}**\n\n" + (markdown(LAWS, rows) if rows else f"Laws: {NOT_MEASURED}."))
        rows = []
        for line in _fits(lines.values()):
            work, psnr = line["work"], line["accuracy"]["psnr"]
            what = f"{line['name']}: {work['gaussians']} Gaussians, {work['edge']} px, {psnr:.1f} dB"
            hours = [f"{cost(line, n):,.1f}" for n in MANY]
            per_hour = f"{3.6e6 * work['identities'] / line['value']:,.0f}"
            rows.append([what, per_hour, *hours, number(line.get("load"), ".1f")])
        parts.append(markdown(COSTS, rows) if rows else f"Cost of many identities: {NOT_MEASURED}.")
    if _no_gpu(devices):
        parts.append(f"GPU and cluster: {NOT_MEASURED}.")
    return "\n\n".join(parts)
