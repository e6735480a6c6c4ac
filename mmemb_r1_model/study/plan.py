"""What a study consists of, and doing it: `mmemb-r1 study run`.

    OUTPUT/evaluator/…                 the evaluator's data and training, once for all seeds, as a bought one would be
    OUTPUT/seed-1/base/…               a pipeline's folder (see pipeline.py)
    OUTPUT/seed-1/<variant>/…          the same; what a variant shares with the base is linked, not made again
    OUTPUT/seed-1/data/test/           the test split of that seed; data/valid/ the validation split, if there is one
    OUTPUT/seed-1/<run>/results/<checkpoint>/<mode>/…   what mmeb-eval wrote

Everything goes on where it was broken off. Seeds don't touch each other: they can run on several machines at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmeb_harness import MODES
from mmemb_r1_model.disk.config import Least0, build_config, named_config, override, read_yaml
from mmemb_r1_model.disk.errors import OptionError, UnknownNameError
from mmemb_r1_model.disk.files import make_folder, matching, read_object, write_json
from mmemb_r1_model.pipeline import (
    Pipeline,
    PipelineConfig,
    Stage,
    SyntheticConfig,
    make_synthetic,
    read_pipeline,
    run_harness,
)
from mmemb_r1_model.study.checks import check_model
from mmemb_r1_model.study.latency import measure_latency
from mmemb_r1_model.study.look_ups import measure_look_ups
from mmemb_r1_model.study.veto import fit_vetoes
from mmemb_r1_model.training.loop import FINAL

BASE, EVALUATOR, GATE_ONLY = "base", "evaluator", "gate-only"
LATENCY, CHECKS, LOOK_UPS, VETOES = "latency.json", "checks.json", "look_ups.json", "vetoes.json"
Checkpoint = Literal["joint", "adaptive"]
#: Settings over which a report draws curves.
COST_KEY, SHORT_KEY = "adapt.reward.length_cost", "adapt.short_tokens"
#: Seeds of one study seed are the configuration's own, moved by this much: two study seeds share none.
SEED_STEP = 1000

_STAGES: tuple[Stage, ...] = ("data", "start", "rationales", "judge", "select", "train", "adapt", "calibrate")
#: Shared up to → what is linked from the base run.
_LINKED = {
    "judge": ("data", "start", "rationales", "judge", "selected/judged.jsonl", "selected/judge.json"),
    "select": ("data", "start", "rationales", "judge", "selected"),
    "train": ("data", "start", "rationales", "judge", "selected", "joint"),
}


@dataclass(frozen=True)
class Variant:
    """A run that differs from the base in a few settings.

    Attributes:
        shares: the last stage whose outcome it takes from the base. `judge`: the judged rationales too.
        checkpoint: of which stage is evaluated; "joint" trains no stage 2.
    """

    name: str
    set: tuple[str, ...]
    shares: Literal["judge", "select", "train"] = "select"
    checkpoint: Checkpoint = "adaptive"


@dataclass(frozen=True)
class StudyConfig:
    """A study.

    Attributes:
        base: a pipeline configuration: a file, or a name; its `evaluate` is not used.
        set: what the study changes in it.
        seeds: every seed in the base, but for the evaluator's, is moved by 1000 for each.
        test: the split that results are from.
        valid: the split that tells whether look-ups have formed (see look_ups.py); `None`: nobody asks.
        tasks: what is evaluated.
        variants: further runs of every seed.
        vetoes: tokens of a rationale that may give it up, 0: all; the runs base and gate-only are evaluated with a veto
            of each kind, fitted on the validation split (see veto.py).
        timed: queries of each task whose latency is measured, one at a time; 0: none.
        checked: queries of each task for the checks (swap, leak, batches); 0: none.
    """

    base: str
    test: SyntheticConfig
    tasks: tuple[str, ...]
    valid: SyntheticConfig | None = None
    seeds: tuple[Least0, ...] = (1, 2, 3)
    set: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    vetoes: tuple[Least0, ...] = ()
    timed: Least0 = 256
    checked: Least0 = 512


def read_study(name: str, assignments: Sequence[str] = ()) -> StudyConfig:
    """From a file, or the name of a configuration that comes with the package.

    Raises:
        HarnessError: a key or value that doesn't fit; two variants of one name.
    """
    config = build_config(StudyConfig, override(read_yaml(named_config(name, "studies")), assignments))
    names = [BASE, *(variant.name for variant in config.variants)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"study {name}: two runs are called {', '.join(twice)}; name each its own")
    if not 0 < len(set(config.seeds)) == len(config.seeds):
        raise OptionError(f"study {name}: seeds must be some, each once, not {', '.join(map(str, config.seeds))}")
    if config.vetoes and config.valid is None:
        raise OptionError(f"study {name}: vetoes are fitted on a validation split: name one, `valid`")
    return config


def seeded(config: Any, seed: int) -> Any:
    """A configuration with every field called "seed" moved, but for those of the evaluator's training."""
    if isinstance(config, tuple):
        return tuple(seeded(part, seed) for part in config)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    values = {name: value if name == "judge" else seeded(value, seed) for name, value in vars(config).items()}
    if "seed" in values:
        values["seed"] += SEED_STEP * seed
    return dataclasses.replace(config, **values)


class Study:
    """A study's output folder, and what is still to do in it."""

    def __init__(self, config: StudyConfig, folder: Path, say: Callable[[str], None]) -> None:
        self.config, self.folder, self._say = config, folder, say
        self._values = {**override(read_yaml(named_config(config.base)), config.set), "evaluate": None}

    def run(self, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> None:
        """Run the evaluator, then seeds (none named: all), and of each the base and the variants (none named: all).

        Raises:
            UnknownNameError: a variant that the study hasn't.
            HarnessError: see the stages.
        """
        known = [EVALUATOR, BASE, *(variant.name for variant in self.config.variants)]
        for name in only:
            if name not in known:
                raise UnknownNameError("run of this study", name, known)
        if not only or EVALUATOR in only:
            self._evaluator()
        for seed in seeds or self.config.seeds:
            folder = self.folder / f"seed-{seed}"
            make_folder(folder)
            write_json(folder / "study.json", dataclasses.asdict(self.config))
            make_synthetic([seeded(split, seed) for split in self._splits], folder / "data")
            if not only or BASE in only:
                self._base(seed, folder / BASE)
            for variant in self.config.variants:
                if not only or variant.name in only:
                    self._variant(seed, folder / variant.name, variant)

    @property
    def _splits(self) -> list[SyntheticConfig]:
        """Those that nothing is trained on."""
        return [split for split in (self.config.test, self.config.valid) if split is not None]

    def _evaluator(self) -> None:
        config = read_pipeline(self._values)
        if config.judge is None:
            return
        own = tuple(split for split in config.synthetic if split.folder in config.judge.folders)
        self._train(dataclasses.replace(config, synthetic=own), self.folder / EVALUATOR, ("data", "judge"), EVALUATOR)

    def _base(self, seed: int, run: Path) -> None:
        pipeline = self._pipeline(seed)
        if pipeline.judge is not None:
            evaluator = self.folder / EVALUATOR
            data = [f"data/{path.name}" for path in matching(evaluator / "data")]
            _link(evaluator, run, ("judge", *data), f"run the study's {EVALUATOR} first: --only {EVALUATOR}")
        self._train(pipeline, run, _STAGES, f"seed {seed}, {BASE}")
        for checkpoint in ("joint", "adaptive"):
            self._evaluate(run, checkpoint)
        self._time(run, "adaptive")
        if self.config.checked and not (run / CHECKS).is_file():
            model, count = run / "adaptive" / FINAL, self.config.checked
            write_json(run / CHECKS, check_model(model, self._test(run), self.config.tasks, count, seed))

    def _variant(self, seed: int, run: Path, variant: Variant) -> None:
        last: Stage = variant.shares
        _link(run.parent / BASE, run, _LINKED[last], f"run the study's {BASE} first: --only {BASE}")
        # Only what isn't shared: another run of a linked stage would write into the base's folder.
        left = _STAGES[_STAGES.index(last) + 1 :]
        stages = [stage for stage in left if stage not in ("adapt", "calibrate") or variant.checkpoint == "adaptive"]
        self._train(self._pipeline(seed, variant.set), run, stages, f"seed {seed}, {variant.name}")
        if variant.checkpoint == "adaptive" and last != "train":
            self._look_ups(run, "joint")
        self._evaluate(run, variant.checkpoint)
        self._time(run, variant.checkpoint)

    def _pipeline(self, seed: int, assignments: Sequence[str] = ()) -> PipelineConfig:
        config: PipelineConfig = seeded(read_pipeline(override(self._values, assignments)), seed)
        return config

    def _train(self, config: PipelineConfig, run: Path, stages: Sequence[Stage], title: str) -> None:
        Pipeline(config, run, lambda line: self._say(f"{title}: {line}")).run(stages)

    def _evaluate(self, run: Path, checkpoint: Checkpoint) -> None:
        model, data = run / checkpoint / FINAL, self._test(run)
        self._look_ups(run, checkpoint)
        for mode in MODES:
            results = run / "results" / checkpoint / mode
            run_harness(model, mode, results, data, self._on_tasks)
        if checkpoint == "adaptive" and run.name in (BASE, GATE_ONLY):
            self._veto(run)

    @property
    def _on_tasks(self) -> list[str]:
        return ["--tasks", ",".join(self.config.tasks)]

    def _veto(self, run: Path) -> None:
        """The run's model with vetoes, as far as they could be fitted."""
        if not self.config.vetoes or self.config.valid is None:
            return
        model, path = run / "adaptive" / FINAL, run / VETOES
        if not path.is_file():
            data = run.parent / "data" / self.config.valid.folder
            write_json(path, {"fitted": fit_vetoes(model, data, self.config.tasks, self.config.vetoes)})
        for fitted in read_object(path, "delete it and run the study again")["fitted"]:
            if fitted["bound"] is not None:
                veto = f"veto={fitted['bound']}:{fitted['tokens']}"
                results = run / "results" / "adaptive" / f"veto-{fitted['tokens']}"
                run_harness(model, "adaptive", results, self._test(run), [*self._on_tasks, "--model-arg", veto])

    def _look_ups(self, run: Path, checkpoint: Checkpoint) -> None:
        path = run / "results" / checkpoint / LOOK_UPS
        if self.config.valid is not None and not path.is_file():
            data = run.parent / "data" / self.config.valid.folder
            measured = measure_look_ups(run / checkpoint / FINAL, data, self.config.tasks)
            write_json(path, {task: dataclasses.asdict(own) for task, own in measured.items()})

    def _time(self, run: Path, checkpoint: Checkpoint) -> None:
        if self.config.timed and not (run / LATENCY).is_file():
            model, count = run / checkpoint / FINAL, self.config.timed
            write_json(run / LATENCY, measure_latency(model, self._test(run), self.config.tasks, count))

    def _test(self, run: Path) -> Path:
        return run.parent / "data" / self.config.test.folder


def _link(base: Path, run: Path, parts: Sequence[str], way_out: str) -> None:
    """Links to what another run of the study has made.

    Raises:
        OptionError: it hasn't.
    """
    for part in parts:
        source, target = base / part, run / part
        if not source.exists():
            raise OptionError(f"{source} is missing: {way_out}")
        make_folder(target.parent)
        if not target.exists():
            target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
