"""The export against trec_eval's own definitions, on real runs: the same scores, whatever ids and ties do."""

from __future__ import annotations

import itertools
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from ir_measures import RR, P, R, Success, nDCG

from mmeb_harness import ResultError
from mmeb_harness.cli.scores import export
from mmeb_harness.core.files import read_parquet, write_parquet
from mmeb_harness.exchange.trec import decode_id, decreasing_scores, encode_id, export_trec
from mmeb_harness.results.files import load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run
from tests.harness.made_runs import mini_run, save_all

NAMES = ("VOC2007", "OK-VQA", "MSR-VTT", "ViDoSeek-doc", "ViDoRe_esg_reports_human_labeled_v2", "MMLongBench-page")
MEASURES = {"hit@1": Success @ 1, "mrr@10": RR @ 10, "precision@5": P @ 5, "recall@10": R @ 10}


@pytest.fixture(scope="module", params=["random", "bag_of_features"])
def run(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    mini_run(cache, folder / "run", NAMES, request.param)
    export_trec(folder / "run", folder / "trec")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_trec_eval_finds_the_same_scores(run: Path, name: str) -> None:
    result = load_task_result(RunFolder(run / "run").task_file(name))
    qrels = list(ir_measures.read_trec_qrels(str(run / "trec" / f"{name}.qrels")))
    ranking = list(ir_measures.read_trec_run(str(run / "trec" / f"{name}.run")))
    found = ir_measures.calc_aggregate([*MEASURES.values(), nDCG @ 5], qrels, ranking)
    for metric, measure in MEASURES.items():
        assert found[measure] == pytest.approx(result.metrics[metric], abs=1e-6), metric
    if result.metric == "ndcg_linear@5":
        assert found[nDCG @ 5] == pytest.approx(result.corrected_score, abs=1e-6)
    else:
        assert found[nDCG @ 5] == pytest.approx(result.metrics["ndcg_linear@5"], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_survives_as_float32(run: Path, name: str) -> None:
    rows = read_parquet(RunFolder(run / "run").queries_file(name)).to_pylist()
    lines = [line.split() for line in (run / "trec" / f"{name}.run").read_text().splitlines()]
    by_query = {query: list(group) for query, group in itertools.groupby(lines, lambda line: line[0])}
    assert {len(line) for line in lines} == {6}
    for row in rows:
        written = by_query[encode_id(row["query_id"])]
        assert [decode_id(line[2]) for line in written] == list(dict.fromkeys(row["top_ids"]))
        assert [int(line[3]) for line in written] == list(range(1, len(written) + 1))
        scores = [np.float32(line[4]) for line in written]
        assert all(upper > lower for upper, lower in itertools.pairwise(scores))
        assert scores[0] == np.float32(row["top_scores"][0])


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", "%"),
        ("%", "%25"),
        ("a cat", "a%20cat"),
        (" 5% \n", "%205%25%20%0A"),
        ("%20", "%2520"),
        ("a\u00a0b\u2003c", "a%C2%A0b%E2%80%83c"),
        ("plain/ünïcode+é", "plain/ünïcode+é"),
    ],
)
def test_ids_are_written_without_whitespace_and_come_back(text: str, written: str) -> None:
    assert encode_id(text) == written
    assert decode_id(written) == text
    assert len(written.split()) == 1


@pytest.mark.parametrize(
    "scores", [[0.5] * 5, [0.0] * 100, [1.0, 1 - 1e-9, 1 - 2e-9, 0.25], [1e-40, 0.0, 0.0], [-0.5, -0.5, -1.0], []]
)
def test_tied_scores_are_nudged_apart_and_no_further(scores: list[float]) -> None:
    written = decreasing_scores(scores)
    as_text = [float(f"{value:.9g}") for value in written]
    assert [np.float32(value) for value in as_text] == written
    assert all(upper > lower for upper, lower in itertools.pairwise(as_text))
    assert written == pytest.approx(scores, abs=1e-6)
    assert not [value for value in written[1:] if 0 < abs(value) < np.finfo(np.float32).tiny]


def spoil(cache: Path, folder: Path, column: str, values: list[object]) -> Path:
    """A run of OK-VQA whose first query has other values in a column."""
    mini_run(cache, folder, ["OK-VQA"], "random")
    path = RunFolder(folder).queries_file("OK-VQA")
    table = read_parquet(path)
    index = table.column_names.index(column)
    rows = [values, *table.column(column).to_pylist()[1:]]
    write_parquet(path, table.set_column(index, column, pa.array(rows, table.schema.field(column).type)))
    save_all(RunFolder(folder), *read_run(folder))
    return folder


def test_a_candidate_listed_twice_is_written_once(cache: Path, tmp_path: Path) -> None:
    ids = read_parquet(
        RunFolder(spoil(cache, tmp_path / "a", "relevant_gains", [1.0])).queries_file("OK-VQA")
    ).to_pylist()[0]["top_ids"]
    folder = spoil(cache, tmp_path / "b", "top_ids", [ids[0], ids[1], ids[0], *ids[3:]])
    (exported,) = export_trec(folder, tmp_path / "trec")
    assert (exported.name, exported.num_queries, exported.repeats) == ("OK-VQA", 24, 1)
    lines = [line.split() for line in (tmp_path / "trec" / "OK-VQA.run").read_text().splitlines()]
    first = [line for line in lines if line[0] == lines[0][0]]
    assert [decode_id(line[2]) for line in first] == [ids[0], ids[1], *ids[3:]]
    done = CliRunner().invoke(export, [str(folder), "--trec", str(tmp_path / "trec")])
    assert done.stderr == "OK-VQA: 1 places of candidates listed twice were left out\n"
    assert done.stdout == f"1 task, 24 queries: {tmp_path / 'trec'}\n"


def test_a_gain_that_is_no_whole_number(cache: Path, tmp_path: Path) -> None:
    folder = spoil(cache, tmp_path / "run", "relevant_gains", [0.5])
    with pytest.raises(ResultError, match=r"OK-VQA: query '.*' has gain 0\.5; TREC judgements are whole numbers"):
        export_trec(folder, tmp_path / "trec")


def test_a_run_without_its_rankings(cache: Path, tmp_path: Path) -> None:
    mini_run(cache, tmp_path / "run", ["OK-VQA"], "random")
    RunFolder(tmp_path / "run").queries_file("OK-VQA").unlink()
    with pytest.raises(ResultError, match=r"OK-VQA\.parquet is missing; run again"):
        export_trec(tmp_path / "run", tmp_path / "trec")
