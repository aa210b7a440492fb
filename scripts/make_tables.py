"""Writes the results in README.md, docs and bench/README.md, and the plots, from the JSON of runs and benchmarks.

python scripts/make_tables.py            # rewrites them between their markers; no number there is typed
python scripts/make_tables.py --check    # fails when one is not what the files say
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # bench is no installed package

from bench import against, full_width, milder_teacher, sharpened, strangers, student_nets, student_recipes  # noqa: E402
from bench.captures_drawn import charts, images, tables  # noqa: E402
from bench.history import HERE, latest  # noqa: E402
from bench.profile import section  # noqa: E402
from bench.scoring import by_class  # noqa: E402
from bench.student_steps import ENOUGH  # noqa: E402
from bench.tables import (  # noqa: E402
    NOT_MEASURED,
    drawings,
    markdown,
    peer_ratios,
    percent,
    performance,
    scaling,
    workloads,
)
from jsplat.report.findings import BINS, METHODS, TEST, VOTED, Goals, ablation_gaps, of_people  # noqa: E402
from jsplat.report.headline import class_changes, edits_text, headline  # noqa: E402
from scripts.predicted_times import table as predicted  # noqa: E402

RUNS = {"heads": "heads_cpu.report", "demo": "demo.report"}  # in bench/history
PLOTS = ROOT / "bench/plots"


def scores(report: dict, group: str) -> str:
    """F1 per pose bin of every method."""
    shown = [b for b in BINS if (b == "all") == (group == TEST)]
    of_core = ["all"] if group == TEST else ["0-15", "side"]
    rows, pictures = [], []
    for method, (name, _, _) in METHODS.items():
        bins = report.get(method, {}).get(group, {}).get("bins")
        if bins:
            pictures = [f"{bins[b]['n']}" for b in shown]
            core = [percent(bins[b]["f1_core"]) for b in of_core]
            rows.append([name, *[percent(bins[b]["f1"]) for b in shown], *core])
    rows.append(["(pictures)", *pictures, *[""] * len(of_core)])
    return markdown(["F1, %", *shown, *(f"core {b}" for b in of_core)], rows)


def ablation(report: dict) -> str:
    """F1 of every vote."""
    names = {
        "f1_frontal": "0-15",
        "f1_45_75": "45-75",
        "f1_75_105": "75-105",
        "f1_side": "side",
        "f1_core_side": "core side",
    }
    votes, gaps = report["ablation"], ablation_gaps(report["ablation"])
    rows = [[vote, *[percent(of[key]) for key in names], percent(gaps[vote])] for vote, of in votes.items()]
    return markdown(["labels, F1 %", *names.values(), "gap closed, side"], rows)


def run_section(report: dict) -> str:
    """What one run found."""
    goals = Goals(**report["goals"])
    minutes = sum(report["stages"].values()) / 60
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["stages"].items())
    commit = report.get("commit", "unknown")
    where = f"{report['device']}, commit {commit}, jax {report['versions']['jax']}, seed {report['seed']}"
    fit = f"Held-out views: PSNR {report['fit']['psnr']:.1f} dB, SSIM {report['fit']['ssim']:.3f}."
    people = {group: of_people(report, group, "people") for group in report["people"]}
    parts = [
        f"Measured on {where}.",
        f"{minutes:.1f} minutes, the teacher's training apart: {stages}. {fit}",
        "\n".join(f"- {line}" for line in (*headline(report, goals), edits_text(report)) if line),
        f"{people['fitted']} whose captures were fitted and used for fine-tuning:\n\n" + scores(report, "fitted"),
        f"{people['unseen']} nobody trained on (fitted all the same, to score their refined labels):\n\n"
        + scores(report, "unseen"),
    ]
    if TEST in people:
        parts.append(f"The test set: {people[TEST]} nobody learnt from, near-frontal:\n\n" + scores(report, TEST))
    if "ablation" in report:
        count = sum(of["scored"] for group, of in report["people"].items() if group in VOTED)
        parts.append(f"Every vote on the same geometry, all {count} people:\n\n" + ablation(report))
    return "\n\n".join(parts)


def _spread(values: list[float | None]) -> str:
    """The mean of some seeds, and from the lowest to the highest."""
    known = [x for x in values if x is not None]
    return f"{percent(sum(known) / len(known))} ({percent(min(known))} to {percent(max(known))})" if known else "-"


def seeds(report: dict) -> str:
    """Students that were trained with several seeds, on one fit and one vote, and the teacher beside them."""
    counts = {group: of["scored"] for group, of in report["people"].items()}
    title = {"fitted": "{} people whose captures taught them", "unseen": "{} people nobody trained on"}
    places = {"side": ("side", "f1"), "side_core": ("side", "f1_core")}
    places |= {"frontal": ("0-15", "f1"), "frontal_core": ("0-15", "f1_core")}
    rows = []
    for group, count in counts.items():
        who, bins = title[group].format(count), report["teacher"][group]["bins"]
        rows.append([f"{METHODS['teacher'][0]}, {who}", *(percent(bins[b][key]) for b, key in places.values())])
        for method, of in report["seeds"].items():
            rows.append([f"{METHODS[method][0]}, {who}", *(_spread(of[group][what]) for what in places)])
    where = f"{report['device']}, commit {report.get('commit', 'unknown')}, jax {report['versions']['jax']}"
    text = (
        f"{_times(report)} seeds of training on one fit and one vote, measured on {where}: F1 in %, the mean and in"
        " brackets the lowest and the highest."
    )
    told = "\n".join(f"- {line}" for line in headline(report, Goals(**report["goals"])) if line)
    return "\n\n".join([text, markdown(["", "side", "core side", "0-15", "core 0-15"], rows), told])


def _times(report: dict) -> int:
    return len(report["seeds"]["student"]["unseen"]["side"])


def seeds_in_short(report: dict) -> str:
    """The same in one sentence."""
    of = {method: _spread(groups["unseen"]["side"]) for method, groups in report["seeds"].items()}
    front = {method: _spread(groups["unseen"]["frontal"]) for method, groups in report["seeds"].items()}
    return (
        f"Over {_times(report)} seeds of training on one fit and one vote the student reaches side F1 {of['student']} %"
        f" on the {report['people']['unseen']['scored']} people nobody trained on, the truth-student"
        f" {of['truth_student']} %, the control {of['control']} %; from the front {front['student']} %,"
        f" {front['truth_student']} % and {front['control']} %."
    )


def gap(report: dict, group: str) -> str:
    """The share of the gap between teacher and oracle that refined masks close from the side, in per cent."""
    teacher, refined, oracle = (report[name][group]["bins"]["side"]["f1"] for name in ("teacher", "refined", "oracle"))
    return percent((refined - teacher) / (oracle - teacher))


def reach(seeds: dict, method: str, group: str, name: str) -> str:
    """From where to where a score went with the seed, in per cent."""
    found = [of[method][group][name] for of in seeds["seeds"].values()]
    return f" ({percent(min(found))} to {percent(max(found))})"


def outcome(report: dict, seeds: dict | None = None) -> str:
    """F1 from the side of each method in one small table; how many people stand behind it is in the heading.

    Args:
        seeds: of `bench.demo_seeds`: then its range stands beside each score.
    """
    counts = {group: of["scored"] for group, of in report["people"].items()}
    title = {"fitted": "{} people whose captures taught the student", "unseen": "{} people nobody trained on"}
    title[TEST] = "{} more, near-frontal pictures"
    places = [(b, group) for b in ("side", "0-15") for group in counts if group in VOTED]
    places += [("all", group) for group in counts if group == TEST]
    rows = []
    for method, (name, _, what) in METHODS.items():
        found = {group: report.get(method, {}).get(group, {}).get("bins") for group in counts}
        if any(found.values()):
            shown = [
                percent(found[group][b]["f1"]) + (reach(seeds, method, group, b) if seeds else "")
                if found[group]
                else "-"
                for b, group in places
            ]
            rows.append([f"**{name}**: {what}", *shown])
    named = {"side": "side", "0-15": "front", "all": "test set"}
    heads = [f"{named[b]}, {title[group].format(counts[group])}" for b, group in places]
    lines = [
        f"Refinement closes {gap(report, group)} % of the gap between teacher and oracle from the side on the"
        f" {title[group].format(n)}."
        for group, n in counts.items()
        if group in VOTED
    ]
    for method, group in (("refined", "fitted"), ("student", "unseen")):
        if changes := class_changes(report, method, group):
            who = title[group].format(counts[group])
            lines.append(f"By class, {METHODS[method][0].lower()} against teacher from the side, {who}: {changes}.")
    where = "F1 in %, side: |yaw| at least 60 degrees, front: at most 15."
    if seeds:
        where += f" In brackets the range over {len(seeds['seeds'])} seeds: other people, another teacher each time."
        where += demo_took(seeds)
    return "\n\n".join([where, markdown(["", *heads], rows), *lines])


def demo_took(seeds: dict) -> str:
    """How long the demos were at work, where that was measured."""
    took = [of for of in seeds.get("took", {}).values() if of]
    if not took:
        return ""
    seconds, busy = ([of[key] for of in took] for key in ("seconds", "busy"))
    return (
        f" A demo took {min(seconds):.0f} to {max(seconds):.0f} s after the installation, nothing compiled before, and"
        f" used {percent(min(busy))} to {percent(max(busy))} % of the cores' time ({seeds['device']}, commit"
        f" {seeds['commit']})."
    )


def picture(about: dict) -> str:
    """What the pictures around it show."""
    who = f"{about['identity']}, yaw {about['yaw']} degrees, {about['pixels']} pixels"
    return f"A person nobody trained on ({who}): `make demo` at commit {about['commit']}, seed {about['seed']}."


def voters(measured: dict[str, dict]) -> str:
    """Side F1 of the refined masks by who votes beside the parser; `measured`: by the folder of people."""
    rows = []
    for name in next(iter(measured.values()))["mean"]:
        each = [" ".join(percent(person[name]) for person in of["people"].values()) for of in measured.values()]
        rows.append([name, *(f"{percent(of['mean'][name])} ({e})" for of, e in zip(measured.values(), each))])
    return markdown(["side F1, %: mean (each person)", *measured], rows)


def sizes_seen(measured: dict) -> str:
    """What first labels and refined masks gain from larger pictures (`bench.enlarged`)."""
    bins, parts = ("0-15", "side"), ("u_lip", "l_lip", "mouth")
    rows = [
        [factor, str(of["input_size"])]
        + [percent(of["parser"][b]) for b in bins]
        + [percent(of["refined"][key]) for key in (*bins, *parts)]
        for factor, of in measured["factors"].items()
    ]
    heads = [*(f"parser, {b}" for b in bins), *(f"refined, {b}" for b in bins), *(f"{part}, side" for part in parts)]
    where = (
        f"{len(measured['people'])} people, {measured['size']} pixels, one teacher, F1 in %, measured at commit"
        f" {measured['commit']}."
    )
    return "\n\n".join([where, markdown(["`enlarge`", "network sees", *heads], rows)])


def enlarged_or_not(without: dict, enlarged: dict) -> str:
    """The same run with first labels of pictures as they were in training, and of enlarged ones, on the unseen."""
    places = {"side": ("side", "f1"), "core side": ("side", "f1_core"), "0-15": ("0-15", "f1")}
    rows = []
    for method in ("teacher", "refined", "oracle", "student", "truth_student", "control"):
        pairs = [
            [percent(report[method]["unseen"]["bins"][b][key]) for report in (without, enlarged)]
            for b, key in places.values()
        ]
        rows.append([METHODS[method][0], *(" to ".join(pair) for pair in pairs)])
    before, after = (report["refined"]["unseen"]["classes_side"] for report in (without, enlarged))
    where = (
        f"{of_people(enlarged, 'unseen', 'people')} nobody trained on, F1 in %, from `enlarge=1` (commit"
        f" {without['commit']}, students of {_times(without)} seeds) to {enlarged['config']['enlarge']:g} (commit"
        f" {enlarged['commit']}, one seed): the same teacher to the bit, everything after it made anew."
    )
    return "\n\n".join(
        [where, markdown(["", *places], rows), f"Refined masks by class, from the side: {by_class(before, after)}."]
    )


def real_size(measured: dict) -> str:
    """What 512 pixels give over 128, and what they cost (`bench.real_size`)."""
    people, runs = measured["people"], measured["runs"]
    rows = []
    for method in next(iter(people.values())):
        name, _, size = method.partition(" ")
        title = f"{name}, {size} pixels" if size else f"{name}, first labels of the 512-pixel run"
        each = [f"{percent(of[method]['f1'])} / {percent(of[method]['boundary_iou'])}" for of in people.values()]
        rows.append([title, *each])
    scored = markdown(["side F1 / boundary IoU, %", *people], rows)
    cost = []
    for size, run in runs.items():
        seconds, disk = run["seconds"], sum(run["disk_mb"].values()) / len(people)
        stages = (f"{seconds[stage]:.0f}" for stage in ("parse", "fit", "label", "masks"))
        cost.append([f"{size} pixels", *stages, f"{run['peak_memory_mb']:,}", f"{disk:.0f}", f"{run['psnr']:.1f}"])
    heads = ["", *(f"{s}, s" for s in ("parse", "fit", "label", "masks")), "memory, MB", "disk a head, MB", "PSNR, dB"]
    where = f"Measured on {measured['device']}, commit {measured['commit']}, load {measured['load']:.1f} at its end."
    return "\n\n".join([where, scored, markdown(heads, cost)])


def in_short(measured: dict) -> str:
    """The same in one sentence."""
    people = measured["people"].values()
    found = {
        size: [" and ".join(percent(of[f"refined {size}"][key]) for of in people) for key in ("f1", "boundary_iou")]
        for size in measured["runs"]
    }
    large, small = found["512"], found["128"]
    return (
        f"At 512 pixels refined masks of {len(people)} people reach side F1 {large[0]} % (boundary IoU {large[1]} %),"
        f" where masks made at 128 pixels and enlarged reach {small[0]} % ({small[1]} %)."
    )


def longer_training(measured: dict) -> str:
    """What more steps of training give a student (`bench.student_steps`)."""
    bins = [*measured["scores"]["teacher"]]
    rows = []
    for name, of in measured["scores"].items():
        scores = [percent(of[b]["f1"]) for b in bins]
        rows.append([name, *scores, percent(of["0-15"]["f1_core"]), percent(of["side"]["f1_core"])])
    table = markdown([f"F1, % ({measured['people']} unseen people)", *bins, "core 0-15", "core side"], rows)
    told = []
    pairs = {"side, minus the student of fewer steps": measured["longer minus shorter, side"]}
    pairs |= {f"{b}, minus the teacher": of for b, of in measured["longer minus teacher"].items()}
    for what, (difference, (low, high)) in pairs.items():
        told.append(f"{what}: {100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]")
    worst = [
        f"{row['class']} at {row['bin']} {100 * row['change']:+.1f}"
        for row in measured["class losses against the teacher"][:3]
    ]
    short, long = measured["steps"]
    where = (
        f"{short} and {long:,} steps, seed {measured['seed']}, trained at commit {measured['trained_at']}, scored at"
        f" {measured['commit']}. Of {long:,} steps, with 95 % intervals: {'; '.join(told)}. What it loses most against"
        f" the teacher, of classes with at least {ENOUGH} pixels: {', '.join(worst)}."
    )
    return f"{where}\n\n{table}"


def longer_in_short(measured: dict) -> str:
    """The same in one sentence."""
    (_, short), (_, long) = [*measured["scores"].items()][1:]
    difference, (low, high) = measured["longer minus shorter, side"]
    return (
        f"By today's settings, and for {measured['steps'][1]:,} steps instead of {measured['steps'][0]}, it reaches"
        f" side F1 {percent(long['side']['f1'])} % on the {measured['people']} unseen people"
        f" ({100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]) and"
        f" {percent(long['0-15']['f1'])} % from the front"
        f" ({percent(short['0-15']['f1'])} % before); one seed each."
    )


def large_run(measured: dict) -> str:
    """What a whole run on large pictures takes (`bench.large_run`)."""
    seconds, disk = measured["seconds"], sum(measured["disk_mb"].values())
    stages = ", ".join(f"{stage} {seconds[stage]:.0f} s" for stage in ("parse", "fit", "label", "masks"))
    return (
        f"A run to masks of {measured['views']} pictures of {measured['size']:,} pixels keeps within"
        f" {measured['peak_memory_mb'] / 1e3:.1f} GB of memory and {disk:.0f} MB of disk: {stages}"
        f" ({measured['fit_steps']} steps of the fit, {measured['device']}, commit {measured['commit']})."
    )


def many_at_real_size(measured: dict) -> str:
    """What many heads take on one such machine at 512 pixels, from first labels to masks in their own pixels."""
    run, heads = measured["runs"]["512"], len(measured["people"])
    each, disk = sum(run["seconds"].values()) / heads, sum(run["disk_mb"].values()) / heads
    rows = [[f"{n:,}", f"{n * each / 3600:,.0f}", f"{n * disk / 1e3:,.0f}"] for n in (1_000, 100_000)]
    text = (
        f"At 512 pixels, 56 views and 50,000 Gaussians a head takes {each:.0f} s on {measured['device']}, from first"
        f" labels to masks in its own pixels ({heads} heads at a time, commit {measured['commit']})."
        f" It keeps {disk:.0f} MB."
    )
    return text + "\n\n" + markdown(["heads", "hours on one such machine", "disk, GB"], rows)


def recorded(name: str) -> dict:
    """A file of bench/history."""
    return json.loads((HERE / "history" / f"{name}.json").read_text())


def sections() -> dict[Path, dict[str, str]]:
    """File -> what belongs between each pair of its markers."""
    devices = latest()
    at_512 = recorded("real_size")
    reports = {name: recorded(file) for name, file in RUNS.items()}
    readme = {
        "picture": picture(json.loads((ROOT / "docs/pictures.json").read_text())),
        "demo": outcome(reports["demo"], recorded("demo_seeds")),
        "heads": outcome(reports["heads"]),
        "heads_seeds": seeds_in_short(recorded("heads_seeds.report")),
        "student_steps": longer_in_short(recorded("student_steps")),
        "real_size": in_short(at_512),
        "captures_needed": images(PLOTS.relative_to(ROOT).as_posix()),
        "beside": peer_ratios(devices),
    }
    profiles = [section(json.loads(path.read_text())) for path in sorted((HERE / "history").glob("*.profile.json"))]
    measured = {
        p.stem.removeprefix("voters_"): json.loads(p.read_text()) for p in (HERE / "history").glob("voters_*.json")
    }
    page = {"workloads": workloads(devices), "scaling": f"{scaling(devices)}\n\n{many_at_real_size(at_512)}"}
    page["profile"] = "\n\n".join(profiles) or f"{NOT_MEASURED}."
    return {
        ROOT / "README.md": readme,
        ROOT / "docs/results.md": {
            **{name: run_section(report) for name, report in reports.items()},
            "heads_seeds": seeds(recorded("heads_seeds.report")),
            "real_size": real_size(at_512),
            "student_steps": longer_training(recorded("student_steps")),
            "enlarged": sizes_seen(recorded("enlarged")),
            "enlarged_unseen": enlarged_or_not(recorded("heads_seeds.report"), recorded("heads_enlarged.report")),
            "sharpened": sharpened.table(recorded("sharpened")),
            "strangers": strangers.table(recorded("strangers"), recorded("heads_enlarged.report")),
            "milder_teacher": milder_teacher.table(recorded("milder_teacher")),
            "full_width": full_width.table(recorded("full_width")),
            "student_nets": student_nets.table(recorded("student_nets")),
            "student_recipes": student_recipes.table(recorded("student_recipes")),
            "large_run": large_run(recorded("large_run")),
            "captures_needed": tables(recorded("captures_needed")),
        },
        ROOT / "docs/masks_from_elsewhere.md": {"voters": voters(dict(sorted(measured.items(), reverse=True)))},
        ROOT / "docs/speed.md": {
            "bench": performance(devices, f"../{PLOTS.relative_to(ROOT).as_posix()}"),
            "predicted": predicted(),
            "against": against.table(recorded("against")),
        },
        ROOT / "bench/README.md": page,
    }


def filled(text: str, bodies: dict[str, str], where: str) -> str:
    """A page with all its sections written anew."""
    for name, body in bodies.items():
        start, end = f"<!-- {name}: made by scripts/make_tables.py -->", f"<!-- end of {name} -->"
        if start not in text or end not in text:
            raise SystemExit(f"{where}: wanted the markers {start} and {end}")
        text = text[: text.index(start) + len(start)] + "\n\n" + body + "\n\n" + text[text.index(end) :]
    return text


def written() -> dict[Path, str]:
    """File -> what it should hold."""
    found = {path: filled(path.read_text(), bodies, path.name) for path, bodies in sections().items()}
    plots = drawings(latest()) | charts(recorded("captures_needed"), recorded(RUNS["heads"]))
    return found | {PLOTS / name: text for name, text in plots.items()}


def main() -> None:
    """Rewrites or checks the pages and plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, text in written().items():
        if check and (not path.is_file() or path.read_text() != text):
            sys.exit(f"{path.relative_to(ROOT)} is not what the files say: python scripts/make_tables.py")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


if __name__ == "__main__":
    main()
