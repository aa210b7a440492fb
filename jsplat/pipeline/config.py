"""All settings of a run, one field per stage."""

import dataclasses
from typing import ClassVar, Literal

from jsplat.captures.importers import ImportConfig
from jsplat.edit import EditConfig, QueueConfig, SimulationConfig
from jsplat.errors import InputError
from jsplat.fitting import FitConfig
from jsplat.labels import MaskConfig, PaletteConfig, SharpenConfig, VoteConfig
from jsplat.parser import ParserConfig, TeacherConfig
from jsplat.report.findings import Goals
from jsplat.synthetic import HeadsConfig
from jsplat.training_sets.reading import DatasetConfig
from jsplat.variants import VariantsConfig
from jsplat.views import ViewsConfig


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Procedural people for the demo.

    Attributes:
        teacher_people, teacher_views: near-frontal pictures that the teacher is trained on.
        people, views: captures that are fitted.
        test_people, test_views: near-frontal pictures of others, on whom all parsers are scored.
    """

    teacher_people: int = 32
    teacher_views: int = 8
    people: int = 6
    views: int = 30
    test_people: int = 16
    test_views: int = 4


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Settings of a whole run, and of the commands before and after it.

    Attributes:
        size: pixels of the longer side of pictures: at which photographs are brought in, and captures and training sets
            are read; 0: their own longer side, the largest of all, up to 512. What a network sees of them is its
            `input_size`.
        seed: decides every random choice.
        unseen: so many people, the last by name, those with true labels first, are fitted and scored but never trained
            on; none: half of those with true labels, at most 2.
        student_people: at most so many of the others, spread evenly, are what the students learn from; 0 for all of
            them.
        student_seeds: so often the student, the truth-student and the control are trained, every time with another
            seed; scores are means. Baselines are trained once.
        procedural_people: so many procedural people, whose labels are exact, join those whom the student learns from;
            for the classes of CelebAMask-HQ alone.
        baselines: students that say to what a gain is due, where there is truth: "photo", without variants; "plain", on
            the plain vote's masks; "self", on the parser's own; "synthetic", on procedural people.
        ablation: also score every other vote (the plain one sharpened, and our palette after the paper's idea, too),
            and what a person's edits would bring, of people with true labels.
        flip: average the parser's prediction with that on the mirrored picture, when it gives the first labels.
        enlarge: how much larger than in its training the parser sees pictures, when it gives the first labels or
            predicts (`jsplat.parser.enlarged`).
        dataset: what parsers are trained and scored on, where it is a public set.
        capture: of `jsplat import`.
        fit, vote, sharpen, mask, views: of the stages of a run.
        variants: people made from the captured ones, from whom the student learns too.
        palette: of our palette labels after the paper's idea, which are scored beside the others.
        edit, queue: of `jsplat edit`; the first also of the simulated edits.
        simulation: of the edits that the report simulates where there is truth.
        teacher: a parser's network and its own training.
        finetune: the training of the student, the truth-student and the control; the network stays the parser's.
        heads: of procedural people.
        demo: how many of them.
        goals: what the report compares its numbers with.
    """

    MOVED: ClassVar = {"capture.size": "size"}  # settings that are called otherwise now

    size: int = 0
    seed: int = 0
    unseen: int | None = None
    student_people: int = 0
    student_seeds: int = 1
    procedural_people: int = 0
    baselines: tuple[Literal["photo", "plain", "self", "synthetic"], ...] = ()
    ablation: bool = True
    flip: bool = True
    enlarge: float = 1.1  # chosen on people that are not among the unseen of any table (bench/enlarged.py)
    dataset: DatasetConfig = dataclasses.field(default_factory=DatasetConfig)
    capture: ImportConfig = dataclasses.field(default_factory=ImportConfig)
    fit: FitConfig = dataclasses.field(default_factory=FitConfig)
    vote: VoteConfig = dataclasses.field(default_factory=VoteConfig)
    sharpen: SharpenConfig = dataclasses.field(default_factory=SharpenConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)
    palette: PaletteConfig = dataclasses.field(default_factory=PaletteConfig)
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    variants: VariantsConfig = dataclasses.field(default_factory=VariantsConfig)
    edit: EditConfig = dataclasses.field(default_factory=EditConfig)
    queue: QueueConfig = dataclasses.field(default_factory=QueueConfig)
    simulation: SimulationConfig = dataclasses.field(default_factory=SimulationConfig)
    teacher: TeacherConfig = dataclasses.field(default_factory=TeacherConfig)
    finetune: ParserConfig = dataclasses.field(  # chosen as `enlarge` was (bench/student_recipes.py)
        default_factory=lambda: ParserConfig(steps=900, batch=8, learning_rate=2e-3, ema_decay=0.99)
    )
    heads: HeadsConfig = dataclasses.field(default_factory=HeadsConfig)
    demo: DemoConfig = dataclasses.field(default_factory=DemoConfig)
    goals: Goals = dataclasses.field(default_factory=Goals)

    def __post_init__(self):
        if self.size < 0:
            raise InputError("size", wanted="pixels, or 0 for the captures' own size up to 512", got=self.size)
        if self.procedural_people < 0:
            raise InputError("procedural_people", wanted="0 or more", got=self.procedural_people)
        if self.student_seeds < 1:
            raise InputError("student_seeds", wanted="at least 1", got=self.student_seeds)
        if not 0.25 <= self.enlarge <= 4:
            raise InputError("enlarge", wanted="a factor from 0.25 to 4", got=self.enlarge)
        if self.seed < 0:
            raise InputError("seed", wanted="0 or more", got=self.seed)

    @property
    def looks(self) -> dict[str, bool | float]:
        """What run.json says of how a parser looks at pictures."""
        return {"flip": self.flip, "enlarge": self.enlarge}

    def for_side(self, pixels: int, input_size: int | None = None) -> "RunConfig":
        """With what is left open (0) decided, so that run.json says what was used.

        Args:
            pixels: of the longer side at which pictures are read.
            input_size: of the parser that is fine-tuned, if one is.
        """
        finetune = self.finetune if input_size is None else self.finetune.for_side(pixels, input_size)
        return dataclasses.replace(self, size=pixels, fit=self.fit.for_side(pixels), finetune=finetune)
