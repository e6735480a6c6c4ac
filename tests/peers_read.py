"""What `mmeb-eval export` writes, read by the tools that it is for; not part of `make test`, since they want much more.

    python -m venv E && E/bin/pip install -e '.[cpu,dev]' mteb==2.26.24 jsonschema
    python3.12 -m venv F && F/bin/pip install every-eval-ever==0.3.0
    E/bin/python -m tests.peers_read --every-eval-ever F/bin/python

mteb reads its files one by one and as a board, and writes some that we read; the hub's client and mteb's own model of
the hub's form read the YAML; Every Eval Ever's validator and its JSON schemas read the record and each row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from mmeb_harness.cli.scores import export
from mmeb_harness.core.registry import RegisteredTask, load_tasks
from mmeb_harness.exchange.every_eval_ever import Evaluator, export_every_eval_ever
from mmeb_harness.exchange.handed import hand_on
from mmeb_harness.exchange.mteb import MTEB_TASKS, import_mteb, mteb_folder
from mmeb_harness.results.files import EncodeStats
from mmeb_harness.results.scores import scores_of_run
from mmeb_harness.run.plan import RunSettings
from tests.harness.made_runs import whole_run
from tests.toy import HashEmbedder, evaluated, info_of, toy_task, write_toy

STARTED = "2026-11-29T20:24:18+00:00"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every-eval-ever", metavar="PYTHON", help="an interpreter that has every-eval-ever")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = {"checkpoint": "org/m", "reasoning": "adaptive"}
        queries = EncodeStats(items=100, encoded=100, reasoned=44, reasoning_tokens=880)
        whole_run(root / "run", model_settings=settings, started=STARTED, queries=queries)
        done = CliRunner().invoke(
            export,
            [f"{root}/run", "--mteb", f"{root}/mteb/results", "--hub", f"{root}/m.yaml", "--url", "https://e.org"],
        )
        assert done.exit_code == 0, done.output
        mteb_reads(root)
        mteb_writes(root / "theirs")
        hub_reads(root / "m.yaml")
        if arguments.every_eval_ever:
            every_eval_ever_reads(root, arguments.every_eval_ever)


def mteb_reads(root: Path) -> None:
    import mteb
    from mteb.models import ModelMeta
    from mteb.results import TaskResult

    own = scores_of_run(root / "run").tasks
    folder = root / "mteb" / "results" / "org__m" / "1"
    meta = ModelMeta.model_validate_json_resolved((folder / "model_meta.json").read_text())
    assert (meta.name, meta.revision, meta.embed_dim) == ("org/m", "1", 8)
    files = [path for path in sorted(folder.glob("*.json")) if path.name != "model_meta.json"]
    alone = {path.stem: TaskResult.from_disk(path, load_historic_data=False).get_score() for path in files}
    assert len(alone) == 78
    for task, (name, subsets) in MTEB_TASKS.items():
        if len(subsets) == 1:
            assert alone[name] == own[task].corrected, task
            known = mteb.get_task(name)
            assert (known.metadata.main_score, known.metadata.eval_splits) == ("ndcg_at_5", ["test"]), task
            assert list(known.hf_subsets) == list(subsets), task
        else:
            assert set(mteb.get_task(name).hf_subsets) == set(subsets), task
    cache = mteb.ResultCache(root / "mteb")
    board = cache.load_results(tasks=[mteb.get_benchmark("ViDoRe(v1)")], include_remote=False)
    (model,) = board.model_results
    assert len(model.task_results) == 10
    everything = cache.load_results(include_remote=False)
    assert len(everything.model_results[0].task_results) == 78
    print(f"mteb {mteb.__version__}: 78 files read, {len(model.task_results)} of 10 on its board ViDoRe(v1)")
    print(board.to_dataframe().to_string(index=False))


def mteb_writes(folder: Path) -> None:
    """Results as mteb itself saves them, subsets and all."""
    import mteb
    from mteb.cache import ResultCache
    from mteb.results import TaskResult

    folder.mkdir()
    expected = {}
    for place, (task, (name, subsets)) in enumerate(MTEB_TASKS.items()):
        values = {subset: (place + step) / 20 for step, subset in enumerate(subsets)}
        scores: Any = {"test": {subset: {"main_score": value, "ndcg_at_5": value} for subset, value in values.items()}}
        result = TaskResult.from_task_results(mteb.get_task(name), scores, evaluation_time=1.0)
        ResultCache(folder).save_to_cache(result, mteb.get_model_meta("nvidia/omni-embed-nemotron-3b"))
        expected[task] = round(sum(values.values()) / len(values), 6)
    scores = import_mteb(mteb_folder(folder / "results"), load_tasks().values())
    assert scores.name == "nvidia/omni-embed-nemotron-3b"
    assert {task: round(score.metrics["ndcg_linear@5"], 6) for task, score in scores.tasks.items()} == expected
    print(f"{len(expected)} files that mteb wrote: read, means over subsets as expected")


def hub_reads(path: Path) -> None:
    import huggingface_hub
    from mteb._hf_integration.eval_result_model import HFEvalResult

    values = yaml.safe_load(path.read_text())
    entries = huggingface_hub.parse_eval_result_entries(values)
    assert huggingface_hub.eval_result_entries_to_yaml(entries) == values
    for value in values:  # its model of the form wants a revision, which the hub doesn't
        HFEvalResult.model_validate({**value, "dataset": {**value["dataset"], "revision": None}})
    print(f"huggingface_hub {huggingface_hub.__version__}: {len(entries)} entries, the first {entries[0]}")


def every_eval_ever_reads(root: Path, python: str) -> None:
    import jsonschema

    write_toy(root, "Zoo", 30)
    rows = {"Zoo": RegisteredTask(toy_task("Zoo"), "zoo")}
    evaluated(HashEmbedder(), [rows["Zoo"]], rows, info_of(root), RunSettings(root / "toys"))
    handed = hand_on(root / "toys", rows, "org/hash", synthetic=True)
    written = export_every_eval_ever(handed, root / "eee", Evaluator("me", "third_party"))
    made_up = dataclasses.replace(handed, run=dataclasses.replace(handed.run, data_synthetic=True))
    written += export_every_eval_ever(made_up, root / "eee", Evaluator("me", "third_party"))
    code = "import every_eval_ever, pathlib; print(pathlib.Path(every_eval_ever.__file__).parent / 'schemas')"
    schemas = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    record, row = (
        json.loads((schemas / f"{name}.schema.json").read_text()) for name in ("eval", "instance_level_eval")
    )
    for path in written:
        if path.suffix == ".json":
            jsonschema.validate(json.loads(path.read_text()), record)
        else:
            for line in path.read_text().splitlines():
                jsonschema.validate(json.loads(line), row)
    done = subprocess.run(
        [python, "-m", "every_eval_ever", "validate", "data/*/*/*/*.json*"],
        cwd=root / "eee",
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    main()
