"""The published scores that come with the harness: complete, by edition, and adding up to the published means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from mmeb_harness.core.benchmark import MMEB_V2, V3
from mmeb_harness.core.registry import benchmark_rows, load_tasks
from mmeb_harness.results.files import mean_scores
from mmeb_harness.results.published import compose_page_fixed, find_published, load_published
from mmeb_harness.results.scores import Scores, means_over

ALL_PUBLISHED = load_published()
PUBLISHED = [scores for scores in ALL_PUBLISHED if scores.edition in MMEB_V2.editions]
PUBLISHED_V3 = [scores for scores in ALL_PUBLISHED if scores.edition not in MMEB_V2.editions]
REGISTERED = load_tasks()
ROWS = benchmark_rows(REGISTERED.values())

#: (tasks of, means of): a set with scores of all tasks, and the published means of the same model.
PAIRS = [
    ("VLM2Vec-V2.0-Qwen2VL-2B", "VLM2Vec-V2"),
    ("VLM2Vec-V1-Qwen2VL-2B", "VLM2Vec-2B"),
    ("gme-Qwen2-VL-2B-Instruct", "GME-2B"),
    ("gme-Qwen2-VL-7B-Instruct", "GME-7B"),
    ("Qwen3-VL-Embedding-8B", "Qwen3-VL-Embedding-8B@readme"),
]
#: Published means that don't follow from the published tasks: (model, mean) → recomputed points. See
#: mmeb_harness/published/README.md for what is known of each.
CONTRADICTIONS = {
    ("VLM2Vec-V1-Qwen2VL-2B", "VisDoc-OOD"): 50.17,
    ("VLM2Vec-V1-Qwen2VL-2B", "visdoc"): 44.32,
    ("VLM2Vec-V1-Qwen2VL-2B", "overall"): 47.81,
    ("gme-Qwen2-VL-2B-Instruct", "VisDoc-OOD"): 66.55,
    ("gme-Qwen2-VL-2B-Instruct", "visdoc"): 76.61,
    ("gme-Qwen2-VL-7B-Instruct", "VisDoc-OOD"): 69.26,
    ("Qwen3-VL-Embedding-8B", "I-RET"): 80.16,
    ("Qwen3-VL-Embedding-8B", "I-VG"): 92.30,
}


def points(scores: Scores) -> dict[str, float]:
    found = {mean.name: mean.score for mean in means_over(scores, ROWS) if mean.complete}
    return {name: 100 * score for name, score in found.items() if score is not None}


@pytest.mark.parametrize(
    ("name", "image", "video", "visdoc", "overall"),
    [
        ("Qwen3-VL-Embedding-8B", 80.12, 67.15, 82.36, 77.82),
        ("Qwen3-VL-Embedding-8B@reproduction", 80.12, 67.62, 82.04, 77.82),
        ("Embed-RL-2B", 69.24, 52.13, 74.06, 66.78),
        ("Embed-RL-4B", 71.19, 52.99, 74.74, 68.08),
    ],
)
def test_means_published_to_the_hundredth(name: str, image: float, video: float, visdoc: float, overall: float) -> None:
    found = points(find_published(PUBLISHED, name))
    assert [found[one] for one in ("image", "video", "visdoc", "overall")] == pytest.approx(
        [image, video, visdoc, overall], abs=0.01
    )


def test_the_means_of_vlm2vec_v2() -> None:
    found = points(find_published(PUBLISHED, "VLM2Vec-V2.0-Qwen2VL-2B"))
    expected = {"I-CLS": 62.90, "I-QA": 56.29, "I-RET": 69.47, "I-VG": 77.30, "image": 64.85}
    expected |= {"V-CLS": 39.30, "V-QA": 34.33, "V-RET": 28.77, "M-RET": 36.82, "video": 34.58}
    expected |= {"ViDoRe-V1": 75.52, "ViDoRe-V2": 44.86, "VisRAG": 79.38}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.01)
    to_the_tenth = {"image": 64.9, "video": 34.6, "visdoc": 69.2, "overall": 59.2, "VisDoc-OOD": 62.2}
    assert {name: found[name] for name in to_the_tenth} == pytest.approx(to_the_tenth, abs=0.0501)


@pytest.mark.parametrize(("tasks_of", "means_of"), PAIRS)
def test_each_published_mean_follows_from_the_tasks_or_is_listed(tasks_of: str, means_of: str) -> None:
    found, published = points(find_published(PUBLISHED, tasks_of)), points(find_published(PUBLISHED, means_of))
    assert len(published) == len(found) == 16
    for name, value in published.items():
        if (tasks_of, name) in CONTRADICTIONS:
            assert found[name] == pytest.approx(CONTRADICTIONS[tasks_of, name], abs=0.01)
            assert abs(found[name] - value) > 0.0501
        else:
            assert found[name] == pytest.approx(value, abs=0.0501), name


@pytest.mark.parametrize(
    ("model", "image", "video", "visdoc"),
    [
        ("VLM2Vec-V2.0-Qwen2VL-2B", 64.92, 34.67, 68.60),
        ("gme-Qwen2-VL-2B-Instruct", 51.87, 33.59, 76.95),
        ("gme-Qwen2-VL-7B-Instruct", 55.93, 38.43, 79.27),
        ("VLM2Vec-V1-Qwen2VL-2B", 59.73, 28.55, 31.17),
        ("VLM2Vec-V1-Qwen2VL-7B", 65.37, 33.79, 32.60),
        ("LamRA-Ret", 54.13, 35.21, 30.50),
        ("colpali-v1.3", 34.89, 28.23, 75.82),
    ],
)
def test_v2_0_1_with_fixed_pages(model: str, image: float, video: float, visdoc: float) -> None:
    """The other way to compose a row: MomentSeeker without duplicates, but ViDoRe without instructions."""
    released, fixed = (find_published(PUBLISHED, f"{model}@{kind}") for kind in ("v2.0.1", "v2.1"))
    found = points(compose_page_fixed(model, released, fixed))
    assert [found["image"], found["video"], found["visdoc"]] == pytest.approx([image, video, visdoc], abs=0.01)


def test_leaderboard_rows_say_how_they_are_composed() -> None:
    row = find_published(PUBLISHED, "VLM2Vec-V2.0-Qwen2VL-2B")
    assert (row.edition, row.origin, len(row.tasks)) == ("page-fixed", "published", 78)
    assert row.tasks["ViDoSeek-page"].metrics["ndcg_linear@5"] == pytest.approx(0.8030, abs=1e-4)
    assert row.notes == (
        "composed: v2.0.0 values (MomentSeeker with 1,800 rows), but ViDoSeek-page and MMLongBench-page on the fixed "
        "pages",
    )


def test_a_board_rows_overall_follows_from_its_means() -> None:
    """Rounded to a tenth, each of them, and so within a tenth."""
    rows = [source.means for source in PUBLISHED if len(source.means) == 4]
    of_tasks = {"image": 36, "video": 18, "visdoc": 24}
    overall = [sum(count * means[name] for name, count in of_tasks.items()) / 78 for means in rows]
    assert overall == pytest.approx([means["overall"] for means in rows], abs=0.001)


def test_what_the_table_holds() -> None:
    names = [one.name for one in PUBLISHED]
    assert len(set(names)) == len(names) == 58
    assert {len(one.tasks) for one in PUBLISHED} == {0, 76, 78}
    assert {len(one.means) for one in PUBLISHED if not one.tasks} == {1, 4, 16}
    assert {one.edition for one in PUBLISHED} == {"page-fixed", "v2.0.0", "v2.0.1"}
    assert not [task for one in PUBLISHED for task in one.tasks if task not in REGISTERED]
    assert all(one.profile is None and one.source for one in PUBLISHED)


REGISTERED_V3 = load_tasks(V3)
ENGLISH_ONLY = {f"ViDoRe_{name}_v2" for name in ("biomedical_lectures", "economics_reports", "esg_reports")}


def test_what_the_table_of_mmeb_v3_holds() -> None:
    """A set is one model in one experiment: all by the name of both, of one edition, tasks or means and never both."""
    assert sum(len(one.tasks) + len(one.means) for one in PUBLISHED_V3) == 1974
    kinds = Counter((one.name.rpartition("@")[2], one.edition, len(one.tasks), len(one.means)) for one in PUBLISHED_V3)
    assert kinds == {
        ("v3-paper", "v3", 179, 0): 2,
        ("v3-paper", "v3-unfixed", 179, 0): 4,
        ("v3-paper", "v3-unfixed", 190, 0): 1,
        ("v3-kit", "v3", 182, 0): 2,
        ("v3-kit", "v3", 193, 0): 1,
        ("v3-rerun", "v3", 11, 0): 1,
        ("v3-wemm", "v3-wemm", 0, 5): 14,
        ("v3-board", "v3-board", 0, 5): 13,
        ("v3-card", "v3-card", 0, 7): 1,
    }
    assert {task for one in PUBLISHED_V3 for task in one.tasks} - REGISTERED_V3.keys() == ENGLISH_ONLY
    assert all(one.notes and one.profile is None for one in PUBLISHED_V3)
    names = [one.name for one in ALL_PUBLISHED]
    assert len(set(names)) == len(names)


def test_the_edition_of_the_papers_rows_is_that_of_their_pages() -> None:
    """One page late, ViDoSeek-page is 50 points harder: no published row lies between."""
    for scores in (one for one in PUBLISHED_V3 if "ViDoSeek-page" in one.tasks):
        score = scores.tasks["ViDoSeek-page"].metrics["ndcg_linear@5"]
        assert (score > 0.7, score < 0.25) == (scores.edition == V3, scores.edition != V3), scores.name


ROWS_V3 = benchmark_rows(REGISTERED_V3.values())
BY_NAME = {scores.name: scores for scores in ALL_PUBLISHED}
AUDIO = [row.task for row in ROWS_V3 if row.modality == "audio"]


def points_v3(scores: dict[str, dict[str, float]], unsupported: Sequence[str] = ()) -> dict[str, float]:
    """What `mean_scores`, which makes a run's means, makes of these: task → metric → score."""
    found = mean_scores(scores, ROWS_V3, unsupported=unsupported)
    return {mean.name: 100 * mean.score for mean in found if mean.complete and mean.score is not None}


def of_modalities(means: Mapping[str, float], text: str) -> dict[str, dict[str, float]]:
    """Every task with the published mean of its modality; texts by one metric."""
    agent = {"tool", "gui", "memory"}
    named = {row.task: "agent" if row.modality in agent else row.modality for row in ROWS_V3}
    metrics = {row.task: text if row.modality == "text" else row.metric for row in ROWS_V3}
    return {task: {metrics[task]: means[name]} for task, name in named.items() if name in means}


@pytest.mark.parametrize(
    ("name", "agent"),
    [
        ("Qwen3-VL-Embedding-2B", 39.3),
        ("Qwen3-VL-Embedding-8B", 38.4),
        ("VLM2Vec-V2.0-2B", 28.7),
        ("GME-7B", 35.6),
        ("VLM2Vec-Qwen2VL-7B", 19.7),
        ("WAVE-7B", 11.3),
    ],
)
def test_agent_is_the_mean_over_47_tasks_and_not_over_its_three_parts(name: str, agent: float) -> None:
    paper = BY_NAME[f"{name}@v3-paper"]
    found = points_v3({task: dict(score.metrics) for task, score in paper.tasks.items()}, AUDIO)
    assert round(found["agent"], 1) == agent != round((found["tool"] + found["gui"] + found["memory"]) / 3, 1)


@pytest.mark.parametrize(
    ("size", "v2", "v3_all", "published"), [("8B", 0.7782, 53.50, 0.535), ("2B", 0.732, 50.93, 0.509)]
)
def test_v3_all_counts_what_a_model_does_not_take_as_0(size: str, v2: float, v3_all: float, published: float) -> None:
    """The published sums take MMEB-V2's tasks from its leaderboard: with the V3 paper's own they would be lower."""
    paper = BY_NAME[f"Qwen3-VL-Embedding-{size}@v3-paper"].tasks
    of_v2 = {row.task: {row.metric: v2} for row in ROWS}
    scores = {task: dict(score.metrics) for task, score in paper.items()} | of_v2
    assert points_v3(scores, AUDIO)["V3-All"] == pytest.approx(v3_all, abs=0.005)
    assert BY_NAME[f"Qwen3-VL-Embedding {size}@v3-wemm"].means["V3-All"] == published == round(v3_all / 100, 3)
    assert "V3-All" not in points_v3(scores)
    own = points_v3({task: dict(score.metrics) for task, score in paper.items()}, AUDIO)
    assert own["V3-All"] < v3_all - 1


def test_one_models_three_overall_values() -> None:
    """From its seven means; the leaderboard has texts by hit@1, and leaves MCMR out of one."""
    card, board = BY_NAME["Tianmu-Emb-Uni@v3-card"].means, BY_NAME["Tianmu-Emb-Uni@v3-board"].means
    by_ndcg = of_modalities(card, "ndcg_linear@5")
    assert points_v3(by_ndcg)["V3-All"] == pytest.approx(53.27, abs=0.01)
    mcmr = BY_NAME["Tianmu-Emb-Uni 8B@v3-wemm"].means["I-MCR"]
    image = (37 * card["image"] - mcmr) / 36
    by_hit = of_modalities({**card, "image": image, "text": board["text hit@1"]}, "hit@1")
    found = points_v3({task: {"ndcg_linear@5": 0.0, **by_hit[task]} for task in by_hit})
    assert found["Overall-189"] == pytest.approx(52.83, abs=0.01)
    assert found["Overall-111"] == pytest.approx(40.50, abs=0.01)
    assert round(board["Overall-189"], 4) == 0.5283


@pytest.mark.parametrize("scores", [one for one in PUBLISHED_V3 if one.edition == "v3-board"], ids=lambda one: one.name)
def test_the_leaderboards_mean_over_111_tasks(scores: Scores) -> None:
    means = {**scores.means, "text": scores.means["text hit@1"]}
    found = points_v3(of_modalities(means, "hit@1"))
    assert found["Overall-111"] == pytest.approx(100 * scores.means["Overall-111"], abs=0.011)


def test_mcmr_does_not_come_out() -> None:
    """Paper and reproduction differ by half, why nobody knows: neither is the other's rounding."""
    both = {
        name: tuple(BY_NAME[f"{name}@{kind}"].tasks["MCMR"].metrics["hit@1"] for kind in ("v3-paper", "v3-kit"))
        for name in ("Qwen3-VL-Embedding-2B", "Qwen3-VL-Embedding-8B", "Omni-Embed-Nemotron-3B")
    }
    assert list(both.values()) == [(0.42, 0.216), (0.38, 0.203), (0.47, 0.26)]
