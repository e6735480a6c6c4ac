"""The gate of a finished checkpoint is calibrated on held-out prompts, and that is what the checkpoint then does."""

from __future__ import annotations

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from mmeb_harness import Item
from mmemb_r1_model.data.pairs import Pair
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load
from mmemb_r1_model.model.add_tokens import add_tokens
from mmemb_r1_model.model.settings import Calibration, Settings, read_settings, write_settings
from mmemb_r1_model.pipeline import Pipeline, read_pipeline
from mmemb_r1_model.training import calibration
from mmemb_r1_model.training.batches import WeightedSet
from mmemb_r1_model.training.calibration import CalibrateConfig, calibrate_gate, held_out
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.platt import Fit
from tests.mmemb_r1.small_pairs import Pairs, pair
from tests.mmemb_r1.small_training import make_student

CONFIG = CalibrateConfig(pairs_from=0.5, prompts=32, negatives=5, batch_size=4)
FITTED = Calibration(slope=0.5, intercept=-0.25, threshold=0.3, prompts=200)
WORDS = ("circle", "square", "red", "blue", "left", "three", "steps", "find")


@pytest.fixture
def final(random_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_checkpoint, tmp_path / "adaptive" / "final"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "FEWEST", 8)


def sets(*weights: float) -> list[WeightedSet]:
    """Data sets of 24 pairs of words."""
    rng = np.random.default_rng(0)

    def one(name: str, number: int) -> Pair:
        query, right = (" ".join(rng.choice(WORDS, 4)) for _ in range(2))
        return pair(number, dataset=name, query=Item("q", text=query), positive=Item("c", text=right))

    named = {f"set {place}": weight for place, weight in enumerate(weights)}
    return [WeightedSet(Pairs(name, tuple(one(name, at) for at in range(24))), named[name]) for name in named]


def test_prompts_are_the_last_pairs_of_each_data_set_by_its_weight() -> None:
    mix = sets(1.0, 3.0)
    chosen = held_out(mix, dataclasses.replace(CONFIG, prompts=12))
    assert [len(own) for own in chosen] == [3, 9]
    assert [len(own) for own in held_out(mix, CONFIG)] == [8, 12]  # half of the pairs are held out, no more than those
    order = np.random.default_rng(0).permutation(24)
    assert [own.id for own in chosen[0]] == [f"p{place}" for place in order[12:15]]


@pytest.mark.usefixtures("few")
def test_a_checkpoint_learns_what_its_gate_is_worth(final: Path) -> None:
    mix = sets(1.0, 1.0)
    fit = calibrate_gate(mix, CONFIG, final, "float32", World())
    assert fit is not None
    assert read_settings(final).calibration == fit.calibration
    assert json.loads((final.parent / "calibration.json").read_text()) == dataclasses.asdict(fit)
    # The same by hand, one pair after the other.
    never, always = (load(str(final), reasoning=mode, gate="raw") for mode in ("never", "always"))
    hits = np.zeros((24, 2))
    for row, own in enumerate(own for chosen in held_out(mix, CONFIG) for own in chosen):
        others = next(weighted.pairs for weighted in mix if weighted.pairs.name == own.dataset)
        drawn = np.random.default_rng((0, 4)).permutation(24)[:5]
        wrong = [others[place].positive for place in drawn if others[place].positive.text != own.positive.text]
        right, *rest = never.encode([own.positive, *wrong], "candidate").vectors
        for path, embedder in enumerate((never, always)):
            query = embedder.encode([own.query], "query").vectors[0]
            hits[row, path] = query @ right > max(query @ other for other in rest)
    assert (fit.never, fit.always) == tuple(hits.mean(axis=0))
    assert (fit.pays, fit.hurts) == (np.mean(hits[:, 1] > hits[:, 0]), np.mean(hits[:, 1] < hits[:, 0]))


@dataclass(frozen=True)
class Together(World):
    """Processes that are threads."""

    barrier: Barrier = field(default_factory=lambda: Barrier(2))
    values: dict[int, Any] = field(default_factory=dict)

    def gather_objects(self, local: Any) -> list[Any]:
        self.values[self.rank] = local
        self.barrier.wait()
        everybodys = [self.values[rank] for rank in range(self.size)]
        self.barrier.wait()
        return everybodys

    def wait(self) -> None:
        self.barrier.wait()


@pytest.mark.usefixtures("few")
def test_processes_share_the_work_and_agree(final: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_at_a_time = Lock()  # transformers can't load in two threads at once; processes can

    def load_alone(*args: Any, **settings: Any) -> MMEmbR1Embedder:
        with one_at_a_time:
            embedder = load(*args, **settings)
            embedder.warm_up()  # loads
            return embedder

    monkeypatch.setattr(calibration, "load", load_alone)
    alone = Path(shutil.copytree(final, tmp_path / "alone" / "final"))
    mix = sets(1.0)
    worlds = [Together(size=2)]
    worlds.append(dataclasses.replace(worlds[0], rank=1))

    def calibrated(world: Together) -> Fit | None:
        try:
            return calibrate_gate(mix, CONFIG, final, "float32", world)
        except BaseException:
            world.barrier.abort()  # or the other one would wait for ever
            raise

    with ThreadPoolExecutor(2) as threads:
        fits = list(threads.map(calibrated, worlds))
    assert fits[0] == fits[1]
    expected = calibrate_gate(mix, CONFIG, alone, "float32", World())
    assert fits[0] is not None
    assert expected is not None
    assert (fits[0].never, fits[0].always) == (expected.never, expected.always)
    assert dataclasses.astuple(fits[0].calibration) == pytest.approx(
        dataclasses.astuple(expected.calibration), abs=1e-3
    )


def test_a_calibrated_checkpoint_forecasts_and_decides_by_it(final: Path, items: list[Item]) -> None:
    before = load(str(final))
    assert "gate" not in before.info.settings
    raw = before.encode(items, "query").traces or ()
    gates = np.array([trace.gate for trace in raw], dtype=float)
    threshold = float(np.median(expit(0.5 * logit(gates) - 0.25)))
    write_settings(final, Settings(**{**vars(read_settings(final)), "calibration": FITTED}))
    embedder = load(str(final), threshold=threshold)
    traces = embedder.encode(items, "query").traces or ()
    assert [trace.gate for trace in traces] == pytest.approx(expit(0.5 * logit(gates) - 0.25), abs=1e-5)
    assert [trace.path == "reasoned" for trace in traces] == [(trace.gate or 0) > threshold for trace in traces]
    assert len({trace.path for trace in traces}) == 2
    plain = embedder.encode_reference(items, "query").traces or ()
    assert [trace.gate for trace in plain] == pytest.approx([trace.gate for trace in traces], abs=1e-4)
    # By its own threshold without being told, and as it was where that is asked for.
    own, as_it_was = load(str(final)), load(str(final), gate="raw")
    assert (own.info.settings["gate"], own.info.settings["threshold"]) == ("calibrated", 0.3)
    assert "gate" in own.info.query_settings
    assert as_it_was.info.settings == before.info.settings | {"gate": "raw"}
    assert [trace.gate for trace in as_it_was.encode(items, "query").traces or ()] == pytest.approx(gates)


def test_a_calibration_stays_with_its_weights_and_no_others(final: Path, tmp_path: Path) -> None:
    without = (final / "mmemb_r1.json").read_bytes()
    settings = read_settings(final)
    write_settings(final, settings)
    assert (final / "mmemb_r1.json").read_bytes() == without  # old checkpoints and those without look the same
    write_settings(final, dataclasses.replace(settings, calibration=FITTED))
    add_tokens(str(final), tmp_path / "again", settings.max_new_tokens)
    assert read_settings(tmp_path / "again") == dataclasses.replace(settings, calibration=FITTED)
    make_student(final).save(tmp_path / "trained")
    assert read_settings(tmp_path / "trained") == settings


def test_too_few_prompts_leave_the_gate_raw(final: Path) -> None:
    assert calibrate_gate(sets(1.0), CONFIG, final, "float32", World()) is None
    assert read_settings(final).calibration is None


@pytest.fixture
def run(final: Path) -> Path:
    """A folder whose trainings are done, and pairs of one's own."""
    rng = np.random.default_rng(1)
    rows = [
        {"query": " ".join(rng.choice(WORDS, 3)), "positive": f"{word} {number}"}
        for number in range(20)
        for word in WORDS[:2]
    ]
    (final.parents[1] / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    described = {"train": {"plan": {"pairs_to": 0.5}}, "adapt": {"plan": {}, "prompts": {"pairs_to": 0.75}}}
    for stage in ("joint", "adaptive"):
        (final.parents[1] / stage).mkdir(exist_ok=True)
        (final.parents[1] / stage / "config.json").write_text(json.dumps(described))
    return final.parents[1]


def pipeline(run: Path, said: list[str], pairs_from: float) -> Pipeline:
    values: dict[str, Any] = {"data": [{"kind": "pairs", "path": str(run / "pairs.jsonl")}]}
    values |= {"train": {"plan": {"pairs_to": 0.5}}, "adapt": {"plan": {"pairs_to": 0.5}}}
    values |= {"calibrate": {"pairs_from": pairs_from, "negatives": 4}}
    return Pipeline(read_pipeline(values), run, said.append)


@pytest.mark.usefixtures("few")
def test_the_stage_refuses_what_was_trained_on_and_runs_once(run: Path) -> None:
    said: list[str] = []
    with pytest.raises(
        OptionError, match=r"calibrate\.pairs_from 0\.4 is below train\.plan\.pairs_to 0\.5: .*make that"
    ):
        pipeline(run, said, 0.4).run(["adapt"])
    # As the folder was trained, whatever the configuration says now; an old record says nothing of shares.
    with pytest.raises(
        OptionError, match=r"0\.75 is below adapt\.plan\.pairs_to 1\.0: .*was trained: leave `calibrate` o"
    ):
        pipeline(run, said, 0.75).run(["calibrate"])
    described = {"adapt": {"plan": {"pairs_to": 0.5}, "prompts": {"pairs_to": 0.75}}}
    (run / "adaptive" / "config.json").write_text(json.dumps(described))
    pipeline(run, said, 0.75).run(["calibrate"])
    (line,) = said
    assert line.startswith("calibrate: gate calibrated on 10 held-out prompts: Brier ")
    assert read_settings(run / "adaptive" / "final").calibration is not None
    pipeline(run, said, 0.75).run(["calibrate"])
    assert said == [line]
