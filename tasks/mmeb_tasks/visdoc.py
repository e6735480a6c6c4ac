"""The 24 visual document tasks, as rows. Names, groups and counts: the benchmark's own (see README.md here)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mmeb_harness import Frames, Pages, Samples, Table, Task
from mmeb_tasks.editions import REPOS, media_of, other_editions, recognise
from mmeb_tasks.readers.builder import read_named

if TYPE_CHECKING:
    from mmeb_tasks.readers.visdoc import VisdocLayout, VisdocReader


class VisdocRow(NamedTuple):
    """One visual document task. `grades`: the relevance grades of its qrels; `folder`: of its pages."""

    name: str
    group: str
    in_distribution: Literal["IND", "OOD"]
    reader: VisdocReader
    repo: str
    split: str
    num_queries: int
    num_candidates: int
    grades: tuple[int, ...]
    folder: str


# fmt: off
ROWS = (
    VisdocRow("ViDoRe_arxivqa", "ViDoRe-V1", "IND", "vidore", "vidore/arxivqa_test_subsampled_beir", "test", 500, 500, (1,), "ViDoRe_arxivqa"),
    VisdocRow("ViDoRe_docvqa", "ViDoRe-V1", "IND", "vidore", "vidore/docvqa_test_subsampled_beir", "test", 451, 500, (1,), "ViDoRe_docvqa"),
    VisdocRow("ViDoRe_infovqa", "ViDoRe-V1", "IND", "vidore", "vidore/infovqa_test_subsampled_beir", "test", 494, 500, (1,), "ViDoRe_infovqa"),
    VisdocRow("ViDoRe_tabfquad", "ViDoRe-V1", "OOD", "vidore", "vidore/tabfquad_test_subsampled_beir", "test", 280, 70, (1,), "ViDoRe_tabfquad"),
    VisdocRow("ViDoRe_tatdqa", "ViDoRe-V1", "IND", "vidore", "vidore/tatdqa_test_beir", "test", 1646, 277, (1,), "ViDoRe_tatdqa"),
    VisdocRow("ViDoRe_shiftproject", "ViDoRe-V1", "OOD", "vidore", "vidore/shiftproject_test_beir", "test", 100, 1000, (1,), "ViDoRe_shiftproject"),
    VisdocRow("ViDoRe_syntheticDocQA_artificial_intelligence", "ViDoRe-V1", "OOD", "vidore", "vidore/syntheticDocQA_artificial_intelligence_test_beir", "test", 100, 968, (1,), "ViDoRe_syntheticDocQA_artificial_intelligence"),
    VisdocRow("ViDoRe_syntheticDocQA_energy", "ViDoRe-V1", "OOD", "vidore", "vidore/syntheticDocQA_energy_test_beir", "test", 100, 977, (1,), "ViDoRe_syntheticDocQA_energy"),
    VisdocRow("ViDoRe_syntheticDocQA_government_reports", "ViDoRe-V1", "OOD", "vidore", "vidore/syntheticDocQA_government_reports_test_beir", "test", 100, 972, (1,), "ViDoRe_syntheticDocQA_government_reports"),
    VisdocRow("ViDoRe_syntheticDocQA_healthcare_industry", "ViDoRe-V1", "OOD", "vidore", "vidore/syntheticDocQA_healthcare_industry_test_beir", "test", 100, 965, (1,), "ViDoRe_syntheticDocQA_healthcare_industry"),
    VisdocRow("ViDoRe_esg_reports_human_labeled_v2", "ViDoRe-V2", "OOD", "vidore", "vidore/esg_reports_human_labeled_v2", "test", 52, 1538, (1, 2), "esg_reports_human_labeled_v2"),
    VisdocRow("ViDoRe_biomedical_lectures_v2_multilingual", "ViDoRe-V2", "OOD", "vidore", "vidore/biomedical_lectures_v2", "test", 640, 1016, (2,), "biomedical_lectures_v2_multilingual"),
    VisdocRow("ViDoRe_economics_reports_v2_multilingual", "ViDoRe-V2", "OOD", "vidore", "vidore/economics_reports_v2", "test", 232, 452, (2,), "economics_reports_v2_multilingual"),
    VisdocRow("ViDoRe_esg_reports_v2_multilingual", "ViDoRe-V2", "OOD", "vidore", "vidore/esg_reports_v2", "test", 228, 1538, (2,), "esg_reports_v2_multilingual"),
    VisdocRow("VisRAG_ArxivQA", "VisRAG", "IND", "visrag", "openbmb/VisRAG-Ret-Test-ArxivQA", "train", 816, 8066, (1,), "VisRAG_ArxivQA"),
    VisdocRow("VisRAG_ChartQA", "VisRAG", "IND", "visrag", "openbmb/VisRAG-Ret-Test-ChartQA", "train", 63, 500, (1,), "VisRAG_ChartQA"),
    VisdocRow("VisRAG_MP-DocVQA", "VisRAG", "IND", "visrag", "openbmb/VisRAG-Ret-Test-MP-DocVQA", "train", 591, 741, (1,), "VisRAG_MP-DocVQA"),
    VisdocRow("VisRAG_SlideVQA", "VisRAG", "IND", "visrag", "openbmb/VisRAG-Ret-Test-SlideVQA", "train", 556, 1284, (1,), "VisRAG_SlideVQA"),
    VisdocRow("VisRAG_InfoVQA", "VisRAG", "IND", "visrag", "openbmb/VisRAG-Ret-Test-InfoVQA", "train", 718, 459, (1,), "VisRAG_InfoVQA"),
    VisdocRow("VisRAG_PlotQA", "VisRAG", "IND", "visrag", "openbmb/VisRAG-Ret-Test-PlotQA", "train", 863, 9593, (1,), "VisRAG_PlotQA"),
    VisdocRow("ViDoSeek-page", "VisDoc-OOD", "OOD", "vidore", "VLM2Vec/ViDoSeek-page-fixed", "test", 1142, 5349, (3,), "ViDoSeek-page"),
    VisdocRow("ViDoSeek-doc", "VisDoc-OOD", "OOD", "vidore", "VLM2Vec/ViDoSeek", "test", 1142, 5349, (2, 3), "ViDoSeek-doc"),
    VisdocRow("MMLongBench-page", "VisDoc-OOD", "OOD", "vidore", "VLM2Vec/MMLongBench-page-fixed", "test", 838, 6492, (3,), "MMLongBench-page"),
    VisdocRow("MMLongBench-doc", "VisDoc-OOD", "OOD", "vidore", "VLM2Vec/MMLongBench-doc", "test", 838, 6492, (2, 3), "MMLongBench-doc"),
)
# fmt: on


def _table(row: VisdocRow, edition: str, config: str) -> Table:
    """One of the three tables: queries, qrels, corpus."""
    return Table(REPOS.get(row.name, {}).get(edition, row.repo), config, row.split)


def _layout(row: VisdocRow, edition: str) -> VisdocLayout:
    """The reader is imported by the row that is read."""
    from mmeb_tasks.readers.visdoc import VisdocLayout

    table = _table(row, edition, "queries")
    return VisdocLayout(row.reader, table.repo, table.split, f"visdoc-tasks/{row.folder}")


def _read(row: VisdocRow, edition: str, data: Path, frames: Frames) -> Samples:
    from mmeb_tasks.readers.visdoc import read_visdoc_task

    return read_visdoc_task(_layout(row, edition), data, frames)


def _page_file(row: VisdocRow, edition: str, page_id: str) -> str:
    from mmeb_tasks.readers.visdoc import page_file

    return page_file(_layout(row, edition), page_id)


def _page_content(page_id: str, stored: bytes) -> bytes:
    from mmeb_tasks.readers.visdoc import page_content

    return page_content(page_id, stored)


def _task(row: VisdocRow, edition: str) -> Task:
    other = {known: _table(row, known, "queries") for known in other_editions(row.name, edition)}
    queries, qrels, corpus = (_table(row, edition, config) for config in ("queries", "qrels", "corpus"))
    return Task(
        name=row.name,
        modality="visdoc",
        group=row.group,
        metric="ndcg_linear@5",
        load=functools.partial(
            read_named, row.name, edition, functools.partial(_read, row, edition), f"annotations/{queries.repo}", other
        ),
        annotations=tuple(pattern for table in (queries, qrels, corpus) for pattern in table.patterns),
        num_queries=row.num_queries,
        num_candidates=row.num_candidates,
        source=queries.repo,
        in_distribution=row.in_distribution,
        edition=edition,
        media=media_of(edition, "image"),
        sources=(
            queries,
            qrels,
            Pages(corpus, "corpus-id", "image", functools.partial(_page_file, row, edition), _page_content),
        ),
        recognise=functools.partial(recognise, row.name, edition),
    )


def tasks(edition: str) -> tuple[Task, ...]:
    """The visual document tasks in one edition."""
    return tuple(_task(row, edition) for row in ROWS)
