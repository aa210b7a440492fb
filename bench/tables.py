"""The tables and plots of README.md and bench/README.md, as text, from the measurements alone."""

from collections.abc import Iterable, Mapping

from bench.scaling import AXES, axis_points, cost, laws
from bench.workloads import LIMITS, PEAK_BYTES, PEAK_OPERATIONS, SUITES
from jsplat.report.figures import line_file

NOT_MEASURED = "not measured"
OURS, PEER = "jsplat", "plain PyTorch"
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37")
QUIET = 0.75  # load per core above which a machine has other work to do
MANY = (1_000, 100_000)  # identities

Devices = Mapping[str, Mapping[str, dict]]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _why_not(line: dict | None) -> str:
    if line is None:
        return NOT_MEASURED
    return f"{NOT_MEASURED}: {line['skipped']}" if line.get("skipped") else f"failed: {line['error']}"


def _ratio(line: dict | None) -> str:
    if line is None or line["value"] is None:
        return _why_not(line)
    best = line.get("fastest")
    return f"{line['value']:.3g} ({'-' if best is None else format(best, '.3g')})"


def _met(line: dict | None) -> str:
    """Whether a goal is met, by the median and by the best rounds; nothing is judged on a machine with other work.

    A thread that waits for the others at a barrier suffers more from other work than one that takes the next task, so
    that a busy machine favours one library over another.
    """
    if line is None or line["value"] is None or line["bound"] is None:
        return "-"
    if (line.get("load") or 0.0) > QUIET * (line.get("cores") or 1):
        return "not judged: busy machine"
    seen = [x for x in (line["value"], line.get("fastest")) if x is not None]
    lower, bound = line["direction"] == "lower", line["bound"]
    return "yes" if all(x <= bound if lower else x >= bound for x in seen) else "**no**"


def goals(devices: Devices) -> str:
    """Every ratio, its goal, and what each kind of device has; GPU suites appear though nobody ran them."""
    wanted = {r.name: r.bound for key, s in SUITES.items() if key != "tiny" for r in s.ratios}
    for lines in devices.values():
        for name, line in lines.items():
            if line["unit"] == "x" and line["suite"] != "tiny":
                wanted.setdefault(name, line["bound"])
    rows = []
    for name, bound in wanted.items():
        if name.startswith("scaling"):
            continue
        gpu = name.startswith("gpu") or "x512" in name
        found = {d: lines[name] for d, lines in devices.items() if name in lines}
        for device, line in found.items() or ([("GPU" if gpu else "CPU", None)]):
            note = (line or {}).get("note") or "-"
            spread = "-" if line is None or line["value"] is None or line["rounds"] < 2 else f"{line['spread']:.0%}"
            goal = "-" if bound is None else f"{bound:g}"
            processor = (line or {}).get("processor")
            used = "-" if processor is None else f"{processor:.3g}"
            rows.append([name, device, _ratio(line), used, goal, _met(line), spread, note])
    return markdown(
        [
            "ratio of times",
            "device",
            "median (best rounds)",
            "processor time",
            "goal",
            "met",
            "IQR",
            "what was compared",
        ],
        rows,
    )


def times(lines: Mapping[str, dict]) -> str:
    """Milliseconds, memory and accuracy of every workload of one device, besides the scaling ones."""
    rows = []
    for name, line in lines.items():
        if line["unit"] == "x" or name.startswith("scaling") or line["suite"] == "tiny":
            continue
        if line["value"] is None:
            rows.append([name, _why_not(line), *["-"] * 6])
            continue
        work, floor = line.get("work") or {}, line.get("floor") or {}
        best = line.get("fastest") or line["value"]
        rate = f"{1e3 * work['images'] / line['value']:.3g}" if work.get("kind") == "network" else "-"
        memory = line.get("program_mb") or line.get("memory_mb") or 0.0
        counted = f"{floor['operations'] / 1e9:.2g} Gop, {floor['bytes'] / 1e6:.2g} MB" if floor else "-"
        spread = f"{line['spread']:.0%}" if line["rounds"] > 1 else "one round"
        compiled = line.get("compile_seconds")
        rows.append(
            [name, f"{line['value']:.4g}", f"{best:.4g}", spread, rate, "-" if memory < 1 else f"{memory:.0f}",
             "-" if compiled is None else f"{compiled:.1f}", counted]
        )  # fmt: skip
    head = ["workload", "median ms", "best ms", "IQR", "images/s", "memory, MB", "compile, s", "floor"]
    return markdown(head, rows)


def limits(devices: Devices) -> str:
    """What single workloads must reach on the GPU that the goals are for, and what was measured."""
    rows = []
    for limit in LIMITS:
        found = {d: lines[limit.workload] for d, lines in devices.items() if limit.workload in lines}
        for device, line in found.items() or [("GPU", None)]:
            if line is None or line["value"] is None:
                rows.append([limit.name, device, _why_not(line), f"{limit.bound:g}", "-"])
                continue
            value, floor = line["value"] / limit.each, line["floor"]
            if limit.floor:
                least = max(floor["operations"] / PEAK_OPERATIONS, floor["bytes"] / PEAK_BYTES)
                value = 1e3 * least / line["value"]
            met = value >= limit.bound if limit.floor else value <= limit.bound
            rows.append([limit.name, device, f"{value:.3g}", f"{limit.bound:g}", "yes" if met else "**no**"])
    return markdown(["512x512, 50,000 Gaussians, 22 channels", "device", "measured", "goal", "met"], rows)


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
    commits = sorted({line["commit"] for line in lines})
    days = sorted({line["when"][:10] for line in lines})
    versions: dict[str, set[str]] = {}
    for line in lines:
        for name, version in line["versions"].items():
            versions.setdefault(name, set()).add(version)
    packages = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in versions.items())
    loads = [line["load"] for line in lines if line.get("load") is not None]
    busy = (
        f" Load average of the machine at the start of a suite: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    )
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, commit {', '.join(commits)}; {packages}.{busy}"


def performance(devices: Devices, plots: str) -> str:
    """README's section; `plots` is the folder of the plots as the README links it."""
    parts = [goals(devices), limits(devices)]
    for device, lines in devices.items():
        parts.append(f"**{device}**: {conditions(lines.values())}")
        names = list(drawings({device: lines}))
        if names:
            parts.append(" ".join(f"![{name}]({plots}/{name})" for name in names))
        if limited := products(lines):
            parts.append(limited)
    if not any("gpu" in line["suite"] for lines in devices.values() for line in lines.values()):
        parts.append(f"GPU: {NOT_MEASURED}.")
    return "\n\n".join(parts)


def drawings(devices: Devices) -> dict[str, str]:
    """File name -> SVG: time against each axis, and PSNR against seconds, of each device that has them."""
    found = {}
    for device, lines in devices.items():
        for axis, name in AXES.items():
            series = {}
            for label, implementation in ((OURS, "jsplat"), (PEER, "torch"), ("gsplat 1.5.3", "gsplat")):
                points = axis_points(lines.values(), axis, implementation)
                if len(points) > 1:
                    series[label] = [(p["work"][axis], p["fastest"]) for p in points]
            if series:
                x_name = "edge of the image, pixels" if axis == "edge" else name
                title = f"ms forward and backward (best round) against {name}"
                found[f"{device}-{axis}.svg"] = line_file(title, x_name, series, COLOURS, log=True)
        curves = psnr_curves(lines.values())
        if curves:
            title = "PSNR in dB against time, all identities"
            found[f"{device}-psnr.svg"] = line_file(title, "seconds", curves, COLOURS)
    return found


def psnr_curves(lines: Iterable[dict]) -> dict[str, list[tuple[float, float]]]:
    """Implementation -> (seconds, PSNR) of whole fits."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if (line.get("work") or {}).get("kind") == "fit" and line["value"] is not None:
            label = OURS if line["work"]["implementation"] == "jsplat" else "two models in a loop, PyTorch"
            curves.setdefault(label, []).append((line["value"] / 1e3, line["accuracy"]["psnr"]))
    return curves


def workloads(devices: Devices) -> str:
    """bench/README.md's table of every workload."""
    return "\n\n".join(f"**{device}**\n\n{times(lines)}" for device, lines in devices.items()) or f"{NOT_MEASURED}."


def scaling(devices: Devices) -> str:
    """bench/README.md's laws and costs."""
    parts = []
    for device, lines in devices.items():
        rows = []
        for implementation, label in (("jsplat", OURS), ("torch", PEER), ("gsplat", "gsplat 1.5.3")):
            for axis, law in laws(list(lines.values()), implementation).items():
                memory = f"{law['memory']:.2f}" if "memory" in law else NOT_MEASURED
                rows.append([label, AXES[axis], f"{law['time']:.2f}", memory, str(law["points"])])
        head = ["implementation", "against", "exponent of time", "of memory", "points"]
        parts.append(f"**{device}**\n\n" + (markdown(head, rows) if rows else f"Laws: {NOT_MEASURED}."))
        fits = [line for line in lines.values() if (line.get("work") or {}).get("kind") == "fit" and line["value"]]
        rows = []
        for line in fits:
            work = line["work"]
            per_hour = 3.6e6 * work["identities"] / line["value"]
            what = (
                f"{line['name']}: {work['gaussians']} Gaussians, {work['edge']} px, {line['accuracy']['psnr']:.1f} dB"
            )
            load = "-" if line.get("load") is None else f"{line['load']:.1f}"
            rows.append([what, f"{per_hour:,.0f}", *(f"{cost(line, n):,.1f}" for n in MANY), load])
        head = ["fit", "identities an hour", *(f"hours for {n:,}" for n in MANY), "load of the machine"]
        parts.append(markdown(head, rows) if rows else f"Cost of many identities: {NOT_MEASURED}.")
    if not any("gpu" in line["suite"] for lines in devices.values() for line in lines.values()):
        parts.append(f"GPU and cluster: {NOT_MEASURED}.")
    return "\n\n".join(parts)
