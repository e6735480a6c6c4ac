"""All stages, one after the other, each in a folder of its own with what made it beside it.

    OUTPUT/data/…          synthetic data, if the configuration asks for some
    OUTPUT/start/          a tiny new student (only for the synthetic suites)
    OUTPUT/rationales/     rationales.jsonl
    OUTPUT/judge/final/    an evaluator trained for the synthetic suites
    OUTPUT/selected/       judged.jsonl (and judged-RANK.jsonl of further processes), selected.jsonl
    OUTPUT/joint/final/    stage 1
    OUTPUT/adaptive/final/ stage 2, its gate calibrated
    OUTPUT/evaluation/…    results of mmeb-eval, one folder a mode

Every stage goes on where it was broken off; a finished one is passed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from torch import distributed

from mmemb_r1_model.data.config import TrainingSetConfig
from mmemb_r1_model.data.pairs import PairSet, contents_of
from mmemb_r1_model.data.rationales import RATIONALES, CarriedRationales, some_of
from mmemb_r1_model.data.recipe import open_sets
from mmemb_r1_model.data.suite import TrustedRationales, read_texts
from mmemb_r1_model.disk.config import Least1, Seed, build_config, open_keys
from mmemb_r1_model.disk.errors import DataError, HarnessError, ModelError, OptionError, progress_of
from mmemb_r1_model.disk.files import make_folder, read_object, write_json
from mmemb_r1_model.disk.hashing import file_fingerprint
from mmemb_r1_model.disk.jsonl import RowWriter
from mmemb_r1_model.disk.trackers import TrackerName, curves_in
from mmemb_r1_model.model.checkpoint import open_checkpoint
from mmemb_r1_model.model.settings import MODES, Mode
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny
from mmemb_r1_model.rationales.config import RationaleConfig
from mmemb_r1_model.rationales.stage import write_rationales
from mmemb_r1_model.selection.judge import WORDS, JudgeConfig, open_judge
from mmemb_r1_model.selection.judge_training import JudgeTrainingConfig, train_judge
from mmemb_r1_model.selection.quality import selection_quality
from mmemb_r1_model.selection.stage import (
    QUALITY,
    SELECTED,
    SelectConfig,
    SelectedRationales,
    judge_rationales,
    select_rationales,
)
from mmemb_r1_model.training.batches import Rationales, WeightedSet, described_pairs
from mmemb_r1_model.training.calibration import (
    CalibrateConfig,
    calibrate_gate,
    check_held_out,
    is_calibrated,
    reached_by,
)
from mmemb_r1_model.training.distributed import World, join_world, leave_world
from mmemb_r1_model.training.loop import FINAL, changed_pairs, is_finished
from mmemb_r1_model.training.platt import FEWEST
from mmemb_r1_model.training.stage1 import TrainConfig, train
from mmemb_r1_model.training.stage2 import AdaptConfig, adapt
from mmemb_r1_model.training.student import Student, StudentConfig, open_student
from mmemb_r1_model.vllm.rollouts import check_rollout_server

Stage = Literal["data", "start", "rationales", "judge", "select", "train", "adapt", "calibrate", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
#: Stages that every process takes part in; in the others all but the first wait.
_SHARED: tuple[Stage, ...] = ("select", "train", "adapt", "calibrate")
#: Which pairs of a data set a stage takes: all of them, or in a dry run some.
Sample = Callable[[Stage, PairSet], PairSet]
#: Told of rationales that a worker has given, and of pairs of a data set that are judged: by its name, how many.
OnUnits = Callable[[str, int], None]
#: How long they wait: torch's own ten minutes would end a run whose first process asks servers for days.
_PATIENCE = timedelta(days=60)


@dataclass(frozen=True)
class SyntheticConfig:
    """A split of a synthetic suite, made with `python -m MODULE`.

    Attributes:
        folder: below OUTPUT/data.
        options: further ones of the module's command.
    """

    module: str
    folder: str
    split: str = "train"
    seed: Seed = 0
    queries: Least1 = 100
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class TinyConfig:
    """A new student or evaluator of the real architecture, tiny, with random weights.

    Attributes:
        texts: folders below OUTPUT/data whose texts the tokenizer is made from.
    """

    texts: tuple[str, ...]
    size: TinySize = field(default_factory=TinySize)
    max_new_tokens: Least1 = 16
    seed: Seed = 0


@dataclass(frozen=True)
class JudgeLessons:
    """Pairs that the student doesn't train on, and how an evaluator learns from them."""

    data: tuple[TrainingSetConfig, ...]
    training: JudgeTrainingConfig = field(default_factory=JudgeTrainingConfig)


@dataclass(frozen=True)
class JudgeStage:
    """An evaluator that is trained here; without this part `select.judge.checkpoint` names a ready one.

    Attributes:
        tiny: what it starts from.
        workers: whose right rationales it learns from.
        lessons: one after the other. With all tasks at once a tiny one hardly learns to read a rationale.
    """

    tiny: TinyConfig
    workers: tuple[str, ...]
    lessons: tuple[JudgeLessons, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of all data that the evaluator learns from."""
        return tuple(sorted({*self.tiny.texts, *(data.path for lessons in self.lessons for data in lessons.data)}))


@dataclass(frozen=True)
class EvaluateConfig:
    """Runs of the harness at the end.

    Attributes:
        data: a data folder, below the root of the training sets or absolute; "": the mini suite.
        options: further options of `mmeb-eval run`.
    """

    data: str = ""
    modes: tuple[Mode, ...] = MODES
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class PipelineConfig:
    """A whole run. `student.checkpoint` may be empty where `start` makes a student.

    Attributes:
        data_root: what paths in `data`, recorded workers and `evaluate.data` are relative to; "": the current folder,
            or OUTPUT/data where synthetic data are made in it.
        rationales: without workers no evaluator is asked either, and the training sees what pairs themselves carry:
            nothing, as a rule, which trains the direct path alone.
        calibrate: of the gate, after `adapt`; `None`: it stays raw.
    """

    data: tuple[TrainingSetConfig, ...]
    rationales: RationaleConfig = field(default_factory=RationaleConfig)
    data_root: str = ""
    synthetic: tuple[SyntheticConfig, ...] = ()
    start: TinyConfig | None = None
    student: StudentConfig = field(default_factory=StudentConfig)
    judge: JudgeStage | None = None
    select: SelectConfig = field(default_factory=SelectConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    adapt: AdaptConfig | None = None
    calibrate: CalibrateConfig | None = None
    evaluate: EvaluateConfig | None = None


def read_pipeline(values: dict[str, Any]) -> PipelineConfig:
    """From a YAML mapping.

    Raises:
        HarnessError: a key or value that doesn't fit.
    """
    if missing := open_keys(values):
        settings = " ".join(f"--set {key}=…" for key in missing)
        raise OptionError(f"{', '.join(missing)}: only you know what to put there; fill in a copy, or add {settings}")
    config = build_config(PipelineConfig, _without_event_files(values))
    if config.synthetic and config.data_root:
        raise OptionError(
            f"data_root {config.data_root!r}: synthetic data are made in OUTPUT/data; leave data_root out"
        )
    return config


def _without_event_files(values: Any) -> Any:
    """The same without `loop.tensorboard`, which files of release 0.1 may have."""
    if isinstance(values, list):
        return [_without_event_files(value) for value in values]
    if not isinstance(values, dict):
        return values
    if isinstance(loop := values.get("loop"), dict) and loop.get("tensorboard"):
        raise OptionError("loop.tensorboard is gone: leave it out, and add --track tensorboard to the command")
    return {name: _without_event_files(value) for name, value in values.items() if name != "tensorboard"}


class Pipeline:
    """One output folder and the stages in it."""

    def __init__(
        self,
        config: PipelineConfig,
        folder: Path,
        say: Callable[[str], None],
        sample: Sample = lambda _, pairs: pairs,
        on_units: OnUnits = lambda *_: None,
        trackers: Sequence[TrackerName] = (),
    ) -> None:
        self.config, self.folder, self._say = config, folder, say
        self._trackers, self._open_curves = trackers, curves_in(trackers, folder)
        self._sample, self._on_units = sample, on_units
        self._root = folder / "data" if config.synthetic else Path(config.data_root).expanduser()

    def run(self, stages: Sequence[Stage] = STAGES) -> None:
        """Run stages in order; time of each is appended to times.jsonl.

        Of several processes the first does alone what can't be shared; the others wait for it. All `leave` at the end.

        Raises:
            HarnessError: also before the first stage, where a later one would miss something.
        """
        self._check(stages)
        world = join_world(self.config.student.device)
        wait = _patient_barrier(world)
        make_folder(self.folder)
        if world.is_first:
            write_json(self.folder / "config.json", dataclasses.asdict(self.config))
        for stage in (stage for stage in STAGES if stage in stages):
            if world.is_first or stage in _SHARED:
                self._run_stage(stage, world.is_first)
            wait()

    def leave(self) -> None:
        """Close the connections to other processes, once: torch can't open them a second time."""
        leave_world(join_world(self.config.student.device))

    def _check(self, stages: Sequence[Stage]) -> None:
        """What would otherwise show after days: folders that aren't there, a student without its tokens or too short.

        Raises:
            OptionError: names the setting.
        """
        config = self.config
        self._check_named(stages)
        if config.data_root and not self._root.is_dir():
            raise OptionError(f"data_root: there is no folder {self._root}; name the one that holds the training sets")
        if config.evaluate and config.evaluate.data and not config.synthetic and "evaluate" in stages:
            folder = self._root / config.evaluate.data
            if not folder.is_dir():
                raise OptionError(
                    f"evaluate.data: there is no folder {folder}; fetch it: mmeb-eval data get --data {folder}"
                )
        if config.start is None and "train" in stages:
            self._check_student()
        if config.calibrate and config.adapt and {"train", "adapt"} & {*stages}:
            plans = dataclasses.asdict(config)
            check_held_out(
                config.calibrate,
                reached_by(plans, "train") | reached_by(plans, "adapt"),
                "make that smaller, or leave `calibrate` out: then the gate stays raw",
            )
        if config.adapt and config.adapt.server and "adapt" in stages:
            check_rollout_server(config.adapt.server, config.student.lora_rank)

    def _check_named(self, stages: Sequence[Stage]) -> None:
        """That the configuration names what the stages work with; a stage of its own can't be passed over."""
        config, workers = self.config, self.config.rationales.workers
        for stage in ("rationales", "select"):
            if stage in stages and not workers and "train" not in stages:
                raise OptionError(
                    f"rationales.workers is empty: name who writes rationales before `{stage}`, or call `mmemb-r1 "
                    "train`, which without them trains the direct path alone"
                )
        if "select" in stages and workers and config.judge is None and not config.select.judge.checkpoint:
            raise OptionError(
                "select.judge.checkpoint is empty: name an evaluator, or give a part `judge` to train one"
            )
        if "train" in stages and config.start is None and not config.student.checkpoint:
            raise OptionError(
                "student.checkpoint is empty: name a checkpoint with MMEmb-R1's tokens (mmemb-r1 add-tokens BASE "
                "FOLDER), or tiny for the embedded one, which a CPU trains"
            )

    def _check_student(self) -> None:
        student = self.config.student
        try:
            longest = open_checkpoint(student.checkpoint, student.revision).settings.max_new_tokens
        except ModelError as error:
            raise OptionError(f"student.checkpoint: {error}. A new one: mmemb-r1 add-tokens BASE FOLDER") from error
        for worker in self.config.rationales.workers:
            if worker.backend != "recorded" and worker.max_new_tokens > longest:
                raise OptionError(
                    f"worker {worker.name!r} may write {worker.max_new_tokens} tokens, the student at most {longest}: "
                    "it would learn rationales that it can't finish. Lower the worker's max_new_tokens, or raise the "
                    f"student's in {student.checkpoint}/mmemb_r1.json (mmemb-r1 add-tokens --max-new-tokens)"
                )

    def _run_stage(self, stage: Stage, reports: bool) -> None:
        began = time.perf_counter()
        what = getattr(self, f"_{stage}")()
        seconds = time.perf_counter() - began
        if what and reports:
            self._say(f"{stage}: {what} ({seconds:.0f} s)")
            with RowWriter(self.folder / "times.jsonl") as times:
                times.write({"stage": stage, "seconds": round(seconds, 1)})

    def sets(self, configs: Sequence[TrainingSetConfig], stage: Stage) -> list[WeightedSet]:
        """Data sets, opened, with the pairs that a stage takes."""
        opened = open_sets(configs, self._root, join_world(self.config.student.device).is_first)
        return [WeightedSet(self._sample(stage, pairs), weight) for pairs, weight in opened]

    def _data(self) -> str:
        return ", ".join(make_synthetic(self.config.synthetic, self.folder / "data"))

    def _start(self) -> str:
        return self._make_tiny(self.config.start, self.folder / "start")

    def _make_tiny(self, config: TinyConfig | None, folder: Path) -> str:
        if config is None or (folder / "config.json").is_file():
            return ""
        with progress_of(f"making a tiny model in {folder}"):
            texts = [text for name in config.texts for text in read_texts(self.folder / "data" / name)]
            tokenizer = build_tokenizer([*texts, *WORDS * 1000], config.size.vocabulary)
            settings = dataclasses.replace(TINY_SETTINGS, max_new_tokens=config.max_new_tokens)
            save_tiny(build_model(tokenizer, config.size, config.seed), tokenizer, settings, folder)
        return f"a new student of {len(tokenizer)} tokens"

    def _rationales(self) -> str:
        if not self.config.rationales.workers:
            return ""
        sets = [weighted.pairs for weighted in self.sets(self.config.data, "rationales")]
        folder, config = self.folder / "rationales", self.config.rationales
        written = write_rationales(sets, config, folder, root=self._root, on_units=self._on_units)
        return f"{written.usable} usable rationales"

    def _judge(self) -> str:
        stage, folder = self.config.judge, self.folder / "judge"
        if stage is None or is_finished(folder) or not self.config.rationales.workers:
            return ""
        self._make_tiny(stage.tiny, folder / "start")
        with progress_of("reading right rationales"):
            trusted = TrustedRationales([self._root / path for path in stage.folders], stage.workers)
        start = folder / "start"
        for number, lessons in enumerate(stage.lessons, start=1):
            # The last one's outcome is the evaluator.
            target = folder if number == len(stage.lessons) else folder / f"lessons-{number}"
            with _own(start, "judge"):
                judge = open_judge(JudgeConfig(checkpoint=str(start)), join_world("auto").device)
            train_judge(judge, self.sets(lessons.data, "judge"), trusted, lessons.training, target, self._open_curves)
            start = target / FINAL
        return "evaluator trained"

    def _select(self) -> str:
        if not self.config.rationales.workers:
            return ""
        config, folder = self.config.select, self.folder / "selected"
        if self.config.judge is not None:
            trained = dataclasses.replace(config.judge, checkpoint=str(self.folder / "judge" / FINAL))
            config = dataclasses.replace(config, judge=trained)
        sets = self.sets(self.config.data, "select")
        world = join_world(config.judge.device)
        wait = _patient_barrier(world)
        with (
            _own(self.folder / "judge", "judge") if self.config.judge else contextlib.nullcontext(),
            progress_of(f"loading the evaluator {config.judge.checkpoint}", shown=world.is_first),
        ):
            judge = open_judge(config.judge, world.device)
        rationales = self.folder / "rationales" / RATIONALES
        if not rationales.is_file():
            raise DataError(f"{rationales} is missing: run `mmemb-r1 rationales` first")
        pairs = [weighted.pairs for weighted in sets]
        judge_rationales(judge, pairs, rationales, config, folder, world, wait, self._on_units)
        wait()
        if world.is_first:
            select_rationales(config, folder)
            made_of = {"rationales": file_fingerprint(rationales), **described_pairs(sets)}
            write_json(folder / "config.json", {**dataclasses.asdict(config), **made_of})
            if self.config.judge is not None and all(data.kind == "suite" for data in self.config.data):
                # On synthetic data alone, where the truth is known.
                folders = [self._root / path for path in sorted({data.path for data in self.config.data})]
                with progress_of("select, how good it is"):
                    quality = selection_quality(folder, folders)
                write_json(folder / QUALITY, quality)
                auc = quality["all"]["auc"]["margin" if config.rule.margin else "delta"]
                told = "nothing to compare" if auc is None else f"AUC {auc:.2f}, 0.5 where it doesn't read them"
                return f"rationales selected; the evaluator tells right ones from wrong ones: {told}"
        return "rationales selected"

    def _train(self) -> str:
        if is_finished(self.folder / "joint"):
            return ""
        config = self.config.student
        if self.config.start is not None:
            config = dataclasses.replace(config, checkpoint=str(self.folder / "start"))
        world = join_world(config.device, config.shard)
        sets, rationales = self._inputs("train")
        with (
            _own(self.folder / "start", "train") if self.config.start else contextlib.nullcontext(),
            progress_of(f"loading the student {config.checkpoint}", shown=world.is_first),
        ):
            student = open_student(config, world)
        if isinstance(rationales, CarriedRationales):
            _check_lengths(student, sets)
        train(student, sets, rationales, self.config.train, self.folder / "joint", world, self._open_curves)
        return "stage 1 done"

    def _adapt(self) -> str:
        if self.config.adapt is None or is_finished(self.folder / "adaptive"):
            return ""
        config = dataclasses.replace(self.config.student, checkpoint=str(self.folder / "joint" / FINAL), revision=None)
        world = join_world(config.device, config.shard)
        sets, rationales = self._inputs("adapt")
        if changed := changed_pairs(self.folder / "joint", contents_of(weighted.pairs for weighted in sets)):
            raise OptionError(
                f"{self.folder / 'joint'} was trained on other pairs of {', '.join(changed)}; go on with the old ones, "
                "or choose another --output"
            )
        loading = progress_of(f"loading the student {config.checkpoint}", shown=world.is_first)
        with _own(self.folder / "joint", "train"), loading:
            student = open_student(config, world)
        folder, curves = self.folder / "adaptive", self._open_curves
        adapt(student, sets, rationales, self.config.adapt, folder, world, open_curves=curves)
        return "stage 2 done" + ("" if self.config.calibrate else ", and nothing to `calibrate`: the gate stays raw")

    def _calibrate(self) -> str:
        config, final = self.config.calibrate, self.folder / "adaptive" / FINAL
        world = join_world(self.config.student.device)
        if not is_finished(final.parent):
            return ""
        with _own(final.parent, "adapt"):
            if config is None or is_calibrated(final):
                return ""
        # What these two trainings took, which isn't what the configuration says of trainings to come.
        check_held_out(
            config,
            reached_by(_described(self.folder / "joint"), "train") | reached_by(_described(final.parent), "adapt"),
            f"that is how {self.folder} was trained: leave `calibrate` out and its gate stays raw, or train anew with "
            "another --output",
        )
        fit = calibrate_gate(self.sets(self.config.data, "calibrate"), config, final, self.config.student.dtype, world)
        if fit is None:
            return (
                f"the gate stays raw: fewer than {FEWEST} prompts are held out, the pairs from "
                f"calibrate.pairs_from {config.pairs_from} on; let there be more"
            )
        return str(fit)

    def _inputs(self, stage: Stage) -> tuple[list[WeightedSet], Rationales]:
        """The data sets, and the rationales that go with them: selected ones, or without workers the pairs' own."""
        path = self.folder / "selected" / SELECTED
        if self.config.rationales.workers and not path.is_file():
            raise DataError(f"{path} is missing: run `mmemb-r1 select` first")
        sets = self.sets(self.config.data, stage)
        is_first = join_world(self.config.student.device).is_first
        if not self.config.rationales.workers:
            carried = CarriedRationales.of([weighted.pairs for weighted in sets])
            if is_first:
                self._say(f"{stage}: no workers write rationales, so {carried.fingerprint}")
            return sets, carried
        with progress_of(f"{stage}, reading selected rationales", shown=is_first):
            rationales = SelectedRationales(path)
            rationales.check([weighted.pairs for weighted in sets])
            self._check_selected_since(sets, stage, is_first)
        return sets, rationales

    def _check_selected_since(self, sets: Sequence[WeightedSet], stage: Stage, is_first: bool) -> None:
        """That what was selected is of the pairs as they are now; of other rationales than there are now a line tells.

        Raises:
            OptionError: names the data sets that have changed.
        """
        folder, written = self.folder / "selected", self.folder / "rationales" / RATIONALES
        contents = contents_of(weighted.pairs for weighted in sets)
        if changed := [name for name in changed_pairs(folder, contents) if name in contents]:
            raise OptionError(
                f"{folder / SELECTED} was selected for other pairs of {', '.join(changed)}: call `mmemb-r1 rationales` "
                "and `mmemb-r1 select`, or go on with the old ones"
            )
        made_of = folder / "config.json"
        if is_first and made_of.is_file() and written.is_file():
            before = read_object(made_of, "select again: mmemb-r1 select").get("rationales")
            if before not in (None, file_fingerprint(written)):
                self._say(f"{stage}: {written} has changed since it was selected from; `mmemb-r1 select` takes it anew")

    def _evaluate(self) -> str:
        config = self.config.evaluate
        if config is None:
            return ""
        last = "adaptive" if self.config.adapt is not None else "joint"
        data = self._root / config.data if config.data else None
        options = [*config.options, *(f"--track={name}" for name in self._trackers)]
        for mode in config.modes:
            run_harness(self.folder / last / FINAL, mode, self.folder / "evaluation" / mode, data, options)
        return "evaluated"


def _described(folder: Path) -> dict[str, Any]:
    """What a training was, by its own record."""
    return read_object(folder / "config.json", "copy it back, or leave `calibrate` out: then the gate stays raw")


def _check_lengths(student: Student, sets: Sequence[WeightedSet]) -> None:
    """That the student could write what pairs carry; of large data sets some of them.

    Raises:
        OptionError: one is longer; pair and setting are named.
    """
    longest = student.settings.max_new_tokens
    for pair in (pair for weighted in sets for pair in some_of(weighted.pairs)):
        for side, text in pair.rationales.items():
            if (tokens := student.rationale_tokens(text)) > longest:
                raise OptionError(
                    f"{pair.dataset}, pair {pair.id!r}: the rationale of its {side} has {tokens} tokens, the student "
                    f"writes at most {longest}: shorten it, or raise max_new_tokens in "
                    f"{student.checkpoint.folder}/mmemb_r1.json"
                )


@contextlib.contextmanager
def _own(folder: Path, stage: Stage) -> Iterator[None]:
    """A checkpoint that this run makes: of one that can't be used the way out is to make it again."""
    try:
        yield
    except ModelError as error:
        way_out = f"move {folder} away and call" if folder.exists() else "call"
        command = "select" if stage == "judge" else stage
        raise ModelError(f"{error}. It is this run's own: {way_out} `mmemb-r1 {command}` to make it") from error


def make_synthetic(splits: Sequence[SyntheticConfig], folder: Path) -> list[str]:
    """Make splits below `folder` that aren't there; the names of those that were made.

    Raises:
        HarnessError: one can't be made.
    """
    made = []
    for split in splits:
        target = folder / split.folder
        if (target / "manifest.json").is_file():
            continue
        options = ["--split", split.split, "--seed", str(split.seed), "--queries", str(split.queries)]
        with progress_of(f"making {target}, {split.queries:,} queries of {split.module}"):
            _command([sys.executable, "-m", split.module, str(target), *options, *split.options])
        made.append(split.folder)
    return made


def run_harness(model: Path, mode: str, results: Path, data: Path | None, options: Sequence[str]) -> None:
    """`mmeb-eval run` of a checkpoint in one mode.

    Args:
        data: a data folder; `None`: the mini suite.

    Raises:
        HarnessError: it failed.
    """
    command = ["run", "--model", "mmemb_r1", "--model-arg", f"path={model}", "--reasoning", mode]
    command += ["--output", str(results), *options]
    if data is not None:
        command += ["--data", str(data)]
    _command([sys.executable, "-m", "mmeb_harness", *command])


def _patient_barrier(world: World) -> Callable[[], None]:
    """A barrier that outlasts any stage; called by every process in the same places."""
    if world.size == 1:
        return lambda: None
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return lambda: distributed.barrier(group)


def _command(words: Sequence[str]) -> None:
    """Run a command of this package; its output goes where ours goes.

    Raises:
        HarnessError: it failed; it has said why.
    """
    # One process of its own: under torchrun it would take itself for this rank and wait for the others.
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(words, check=False, env=environment)
    if done.returncode:
        raise HarnessError(f"`{' '.join(words[1:])}` ended with code {done.returncode}; see above")
