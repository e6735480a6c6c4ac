"""Scores as the hub's evaluation results: the YAML of `.eval_results/` in a model's repository, one file a variant.

An entry names the benchmark's data set and a task of it. Which tasks there are is for the data set's own `eval.yaml` to
say; until it has one, they are our names, and the means as "overall", "image", … Values are in %, as on the board.
"""

from __future__ import annotations

from pathlib import Path

from mmeb_harness.core.benchmark import PAGE_FIXED, V3, V3_EDITIONS
from mmeb_harness.core.errors import OptionError, leading
from mmeb_harness.core.files import write_text
from mmeb_harness.exchange.handed import Handed, benchmark_tasks, refuse_existing, variant_note

DATASET, DATASET_V3 = "TIGER-Lab/MMEB-V2", "VLM2Vec/MMEB-V3"
SUFFIXES = (".yaml", ".yml")
#: Of a value in %: what is beyond depends on the machine.
DIGITS = 6


def export_hub(handed: Handed, output: Path, url: str = "") -> list[str]:
    """Write the benchmark's tasks of a run, and those means that are over all of their tasks.

    Args:
        url: where the results are described; the source of each entry.

    Returns:
        What isn't in the file, a line each.

    Raises:
        ResultError: none of the tasks is the benchmark's; or the file is there already, or can't be written.
        OptionError: not a YAML file.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    if output.suffix not in SUFFIXES or output.is_dir():
        raise OptionError(f"--hub {output} is no YAML file; name one, as it goes to .eval_results/, e.g. mmeb-v2.yaml")
    refuse_existing([output])
    values = {result.name: result.score for result in benchmark_tasks(handed)}
    whole = {mean.name: mean.score for mean in handed.run.aggregates if mean.complete and mean.score is not None}
    about = [
        variant_note(handed.run),
        "" if handed.run.edition in (PAGE_FIXED, V3) else f"edition {handed.run.edition}",
    ]
    entries = [
        EvalResultEntry(
            dataset_id=DATASET_V3 if handed.run.edition in V3_EDITIONS else DATASET,
            task_id=name,
            value=round(100 * value, DIGITS),
            date=handed.run.started or None,
            source_url=url or None,
            source_name="mmeb-harness" if url else None,
            notes=", ".join(filter(None, about)) or None,
        )
        for name, value in {**whole, **values}.items()
    ]
    write_text(output, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True))
    return _left_out(handed, len(values))


def _left_out(handed: Handed, written: int) -> list[str]:
    lines = []
    if partial := [mean for mean in handed.run.aggregates if not mean.complete]:
        missing = partial[0].missing
        lines.append(
            f"{', '.join(mean.name for mean in partial)}: left out, {len(missing)} of the benchmark's tasks are "
            f"missing ({leading(missing)}); run them into the same folder"
        )
    if own := len(handed.results) - written:
        lines.append(
            f"{own} tasks that are not the benchmark's: left out, the hub has no board for them; --eee takes them"
        )
    return lines
