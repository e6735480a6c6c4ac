"""How much of what is read of prompts all prompts of a task and role have in common, before any picture or clip.

python -m tests.benchmarks.prefixes [--queries N]

Of the mini suites, by kind of task (of MMEB-V3's 190 tasks, whose first 78 are MMEB-V2's), with the embedded model's
tokenizer: tokens of all distinct prompts, and the share of them that a cache of each task's beginning would save. An
instruction that all of a task's queries share is in it, a question's own words aren't. On the mini suite pictures are
small; `of real pictures` counts each as the least that Qwen3-VL's settings let through (64 tokens), the most that can
be saved beside real ones.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import click
from mmeb_tasks import EDITIONS
from mmeb_tasks.editions import V3_EDITIONS
from mmeb_tasks.mini import SUITE_V3

from mmeb_harness import Item, Profile, run_command
from mmeb_harness.data.folder import describe, ensure_suite, load_samples
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load

#: Visual tokens of the smallest picture that the settings of the published sizes let through.
SMALLEST_PICTURE = 64


def ids_of(embedder: MMEmbR1Embedder, item: Item) -> tuple[int, ...]:
    """Tokens of a prompt without its media."""
    return tuple(embedder.prompt(dataclasses.replace(item, images=(), frames=(), places=())).ids.tolist())


def in_common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all of them begin with."""
    places = zip(*rows, strict=False)
    return next((place for place, ids in enumerate(places) if len(set(ids)) > 1), min(map(len, rows)))


def shares_of(embedder: MMEmbR1Embedder, items: Sequence[Item]) -> tuple[int, int, int]:
    """Tokens of distinct prompts, the same beside pictures of the least size, and those that needn't be read again."""
    distinct = {(item.instruction, item.text, item.images, item.frames, item.places): item for item in items}
    ids = {key: ids_of(embedder, item) for key, item in distinct.items()}
    bare = {key: ids_of(embedder, dataclasses.replace(item, text="")) for key, item in distinct.items()}
    # Before media stand the system turn and the opening of the user's: what an item without words begins with, but for
    # the request and the opening of the answer.
    beginnings = [
        ids[key][: in_common([ids[key], bare[key]])] if item.images or item.frames else ids[key]
        for key, item in distinct.items()
    ]
    common = in_common(beginnings)
    words = sum(map(len, ids.values()))
    visual = sum(embedder._items.visual_tokens(item) for item in distinct.values())
    least = sum(SMALLEST_PICTURE * max(len(item.images), -(-len(item.frames) // 2)) for item in distinct.values())
    return words + visual, words + max(visual, least), common * (len(distinct) - 1)


@click.command(help=__doc__)
@click.option("--queries", default=20, show_default=True, help="Of each task, with their candidates.")
def main(queries: int) -> None:
    info, embedder = describe(ensure_suite(SUITE_V3, 0)), load()
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for task in EDITIONS[V3_EDITIONS[0]]:
        samples = load_samples(task, info, Profile(), queries)
        for role, items in (("queries", samples.queries), ("candidates", samples.candidates)):
            if items := [item for item in items if item.sound is None]:
                found[f"{task.group.split('-')[0]} {role}"].append(shares_of(embedder, items))
    click.echo(f"{'':24}  {'tokens':>9}  {'in common':>9}  of real pictures")
    for name, shares in [*found.items(), ("all", [share for group in found.values() for share in group])]:
        tokens, real, common = (sum(column) for column in zip(*shares, strict=True))
        click.echo(f"{name:24}  {tokens:9,}  {common / tokens:9.1%}  {common / real:16.1%}")


if __name__ == "__main__":
    run_command(main)
