"""What runs, as data: steps (a) to (h), each of parts that have a process and a time limit of their own."""

import dataclasses

KERNELS = ("mosaic_gpu", "triton")  # the best first; XLA is what they fall back on
PHOTO_LOSS = "photo_loss"  # Mosaic's, and apart from its other kernels
STEPS = {
    "about": "device, driver, versions, clocks",
    "a": "the smallest case of each kernel against the float64 reference",
    "b": "one view and 32 identities, 22 channels, with accuracy",
    "c": "each kernel under the sanitizers, lists that stop early, 22 channels",
    "d": "the same bits twice, and in two processes",
    "e": "a profile of forward, backward and sort",
    "f": "the fit of 32 identities and its PSNR",
    "g": "gsplat and PyTorch beside ours",
    "h": "the tests of the kernels on the device, the other benchmarks",
}
_SANITIZER = "compute-sanitizer --error-exitcode 9 --tool"
# Clocks stay as they are; one call of a program that has run before (`steps.profiled` says when).
_NCU = (
    "ncu --clock-control none --profile-from-start off --csv --log-file {out}/ncu.csv"
    " --section SpeedOfLight --section Occupancy --section LaunchStats --section WarpStateStats"
    " --kernel-name regex:mosaic_gpu|collect|sum_over|forward|backward|Radix"
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: STEP.WHAT, unique.
        run: what of `bench.gpu.steps` it runs, with `args`.
        limit: seconds after which it is ended.
        least: seconds that must be left to begin it.
        kernel: the only one it is about: it does not run where step (a) found that one broken.
        tool: the program it runs under, and its arguments; {out} is the folder of the results.
        concurrent: whether others of its step may run at the same time: it measures no time.
    """

    name: str
    run: str
    args: tuple[str, ...] = ()
    limit: float = 60.0
    least: float = 15.0
    kernel: str = ""
    tool: str = ""
    concurrent: bool = False

    @property
    def step(self) -> str:
        """Its letter."""
        return self.name.partition(".")[0]


def parts() -> list[Part]:
    """All, in the order in which they run."""
    found = [Part("about", "about", limit=45)]
    found += [
        Part(f"a.{kernel}.{way}", "smallest", (kernel, way), limit=50, concurrent=True)
        for kernel in KERNELS
        for way in ("forward", "backward")
    ]
    found += [Part(f"a.{PHOTO_LOSS}.both", "photo", limit=50, concurrent=True)]
    found += [Part("a.mosaic_gpu.lists", "lists", limit=50, concurrent=True)]
    found += [Part("a.xla", "smallest", ("xla", "forward", "backward"), limit=60, concurrent=True)]
    found += [Part(f"b.{n}_images", "headline", (str(n),), limit=100) for n in (1, 32)]
    found += [
        Part(
            f"c.{tool}.{kernel}", "stopping", (kernel,), 90, kernel=kernel, tool=f"{_SANITIZER} {tool}", concurrent=True
        )
        for tool in ("synccheck", "initcheck", "memcheck", "racecheck")
        for kernel in KERNELS
    ]
    found += [
        Part(
            f"c.{tool}.{PHOTO_LOSS}", "photo", limit=90, kernel=PHOTO_LOSS, tool=f"{_SANITIZER} {tool}", concurrent=True
        )
        for tool in ("synccheck", "memcheck", "racecheck")
    ]
    found += [Part("d.first", "bits", limit=60), Part("d.second", "bits", limit=60)]
    found += [Part("e.trace", "trace", limit=90), Part("e.ncu", "profiled", limit=120, tool=_NCU)]
    found += [Part("f.fit", "fit_many", limit=200, least=60)]
    found += [
        Part("g.gsplat", "compare", ("gpu-raster", " 22"), limit=150, least=30),
        Part("g.torch", "compare", ("gpu-parser-1", "^(?!.*compiled)"), limit=150, least=60),
    ]
    for kernel in KERNELS:
        own = f"{kernel} and not interpreted and not test_{kernel}"  # what is interpreted, CI runs
        found.append(Part(f"h.tests.{kernel}", "tests", (own,), 240, 60, kernel))
    rest = " and ".join(f"not {kernel}" for kernel in KERNELS)
    found.append(Part("h.tests.rest", "tests", (rest,), limit=300, least=90))
    found += [
        Part(f"h.{suite}", "alone", (suite,), limit=300, least=60) for suite in ("gpu-own", "gpu-step", "gpu-lift")
    ]
    return [*found, Part("h.step", "step_by_step", limit=240, least=90)]


REHEARSED = (
    "about",
    "a.mosaic_gpu.lists",
    "a.photo_loss.both",
    "a.xla",
    "b.1_images",
    "c.synccheck.mosaic_gpu",
    "c.synccheck.triton",
    "d.first",
    "d.second",
)
REHEARSED += ("e.trace", "f.fit", "g.gsplat", "h.tests.rest")


def rehearsed() -> list[Part]:
    """What `--rehearse` runs on a processor: parts of every kind, a kernel that hangs, and a crash."""
    found = [dataclasses.replace(part, tool="", least=1) for part in parts() if part.name in REHEARSED]
    found += [Part("a.mosaic_gpu.forward", "hang", limit=6, concurrent=True), Part("b.crash", "crash")]
    return sorted(found, key=lambda part: [*STEPS].index(part.step))


def wanted(every: list[Part], names: list[str], done: set[str]) -> list[Part]:
    """Those of the steps or parts that are named (all if none is), without what is done; what is named in full runs.

    The first one, about the machine, always does: it may be another one.

    Raises:
        ValueError: a name that is neither.
    """
    known = {part.name for part in every} | {part.step for part in every}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"wanted steps {', '.join(STEPS)} or parts of them, got {', '.join(unknown)}")
    full = {part.name for part in every if part.name in names}
    first, *rest = every
    chosen = [part for part in rest if not names or part.name in full or part.step in names]
    return [first, *(part for part in chosen if part.name in full or part.name not in done)]
