"""Stage 0a: rows, resuming, duplicates, loops, leaks; recorded and local workers."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmemb_r1_model.data.pairs import Item, Pair, Side
from mmemb_r1_model.data.rationales import RATIONALES, RationaleRow, read_rationales
from mmemb_r1_model.disk.config import build_config
from mmemb_r1_model.disk.errors import DataError, ModelError, OptionError, UnknownNameError
from mmemb_r1_model.model.tiny_model import build_tokenizer
from mmemb_r1_model.rationales.config import RationaleConfig, WorkerConfig, check_config
from mmemb_r1_model.rationales.leak import leak_test, leaks_verbatim
from mmemb_r1_model.rationales.stage import CONFIG, FAILURES_IN_A_ROW, SUMMARY, write_rationales
from mmemb_r1_model.rationales.text import clean, is_loop
from tests.mmemb_r1.loopback_chat import Asked, Chat, Fail, Reply, Say, echo, serve
from tests.mmemb_r1.small_pairs import Pairs, pair, pairs, server
from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[3]


def rows(folder: Path) -> list[RationaleRow]:
    return list(read_rationales(folder))


def contents(folder: Path) -> list[RationaleRow]:
    """All but the time it took."""
    return [dataclasses.replace(row, seconds=None) for row in rows(folder)]


def key(row: RationaleRow) -> tuple[str, str, str, str, int]:
    return row.dataset, row.pair, row.side, row.worker, row.sample


def test_a_row_for_every_worker_side_and_sample(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    with serve(Chat(echo)) as url:
        config = RationaleConfig((server(url, "a"), server(url, "b", seed=1)), samples=2)
        summary = write_rationales(pairs(3), config, tmp_path, on_units=lambda *units: seen.append(units))
    found = rows(tmp_path)
    # Worker after worker, then in the order of the pairs.
    sides = ("query", "positive")
    assert [key(row) for row in found] == [
        ("shapes", f"p{n}", side, worker, sample)
        for worker in "ab" for n in range(3) for side in sides for sample in range(2)
    ]  # fmt: skip
    assert all(row.usable and row.tokens == 7 and row.seconds for row in found)
    assert len({row.text for row in found}) == 24  # a seed of its own for each
    assert seen == [("a", 1)] * 12 + [("b", 1)] * 12
    stored = json.loads((tmp_path / SUMMARY).read_text())
    assert stored == json.loads(json.dumps(dataclasses.asdict(summary)))
    assert stored["pair_sides"] == 6
    assert stored["workers"][0]["answered"] == stored["workers"][0]["usable"] == 12
    assert stored["workers"][0]["mean_tokens"] == 7
    assert json.loads((tmp_path / CONFIG).read_text())["workers"][1]["seed"] == 1


def test_a_worker_sees_one_side(tmp_path: Path) -> None:
    chat = Chat(echo)
    with serve(chat) as url:
        write_rationales(pairs(4), RationaleConfig((server(url),)), tmp_path)
    assert len(chat.asked) == 8
    assert not any("question" in asked.text and "answer" in asked.text for asked in chat.asked)


def test_a_second_start_asks_nobody(tmp_path: Path) -> None:
    chat = Chat(echo)
    with serve(chat) as url:
        for _ in range(2):
            write_rationales(pairs(3), RationaleConfig((server(url),)), tmp_path)
    assert len(chat.asked) == 6
    assert len(rows(tmp_path)) == 6


def test_a_torn_file_is_completed(tmp_path: Path) -> None:
    chat = Chat(echo)
    with serve(chat) as url:
        config = RationaleConfig((server(url, "a"), server(url, "b")), samples=2)
        write_rationales(pairs(3), config, tmp_path)
        whole = contents(tmp_path)
        path = tmp_path / RATIONALES
        for size in (path.stat().st_size - 30, 1000, 5, 0):
            path.write_bytes(path.read_bytes()[:size])
            kept = path.read_bytes().count(b"\n")
            before = len(chat.asked)
            write_rationales(pairs(3), config, tmp_path)
            assert contents(tmp_path) == whole
            assert len(chat.asked) - before == 24 - kept


CHILD = """
import sys
from pathlib import Path
from mmemb_r1_model.rationales.config import RationaleConfig
from mmemb_r1_model.rationales.stage import write_rationales
from tests.mmemb_r1.small_pairs import pairs, server
config = RationaleConfig((server(sys.argv[1], max_parallel=4),))
write_rationales(pairs(40), config, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    def slow(asked: Asked) -> Reply:
        """And none any more, after half of them."""
        return dataclasses.replace(echo(asked), seconds=0.05 if len(chat.asked) <= 40 else PATIENCE)

    chat = Chat(slow)
    with serve(chat) as url:
        command = [sys.executable, "-c", CHILD, url, str(tmp_path / "killed")]
        child = subprocess.Popen(command, cwd=ROOT)
        path = tmp_path / "killed" / RATIONALES
        wait_until(lambda: path.is_file() and path.read_bytes().count(b"\n") >= 5)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = path.read_bytes().count(b"\n")
        assert 5 <= kept < 80
    # A server of its own: what the killed run sent last may reach the first one at any time.
    with serve(again := Chat(echo)) as url:
        config = RationaleConfig((server(url, max_parallel=4),))
        write_rationales(pairs(40), config, tmp_path / "killed")
        assert len(again.asked) == 80 - kept
        write_rationales(pairs(40), config, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    def intrude(*_: object) -> None:
        with pytest.raises(DataError, match="another run is writing to"):
            write_rationales(pairs(1), config, tmp_path)

    with serve(Chat(echo)) as url:
        config = RationaleConfig((server(url),))
        write_rationales(pairs(1), config, tmp_path, on_units=intrude)


def test_failed_rows_are_tried_again(tmp_path: Path) -> None:
    chat = Chat(echo, script=[Fail(400, "odd input"), Fail(500, "busy")])
    with serve(chat) as url:
        config = RationaleConfig((server(url, max_parallel=1),))
        summary = write_rationales(pairs(2), config, tmp_path).workers[0]
        assert (summary.answered, summary.failed) == (2, 2)
        assert summary.errors == {"HTTP 400: odd input": 1, "HTTP 500: busy, 1 attempts": 1}
        assert [row.failed for row in rows(tmp_path)] == [True, True, False, False]
        summary = write_rationales(pairs(2), config, tmp_path).workers[0]
        assert (summary.answered, summary.failed) == (4, 0)
        assert len(chat.asked) == 6
        write_rationales(pairs(2), config, tmp_path / "whole")
    assert sorted(contents(tmp_path), key=key) == sorted(contents(tmp_path / "whole"), key=key)


def test_rows_of_a_pair_that_changed_are_written_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chat = Chat(lambda asked: Say("it is round"))
    with serve(chat) as url:
        config = RationaleConfig((server(url, "a"), server(url, "b")), sides=("query",))

        def asked_for(*some: Pair) -> int:
            before = len(chat.asked)
            write_rationales([Pairs("shapes", some)], config, tmp_path)
            return len(chat.asked) - before

        picture = tmp_path / "here" / "a.png"
        picture.parent.mkdir()
        Image.new("RGB", (32, 32)).save(picture)
        shown = pair(2, query=Item("q", images=(picture,)))
        assert asked_for(pair(0), pair(1), shown) == 6
        whole = contents(tmp_path)
        edited = pair(1, query=Item("q", text="another question"))
        assert asked_for(edited) == 2  # those of the others, which nobody asks for now, stay
        assert "rationales: 2 rationales of pairs that changed since are written again" in capfd.readouterr().out
        found = contents(tmp_path)
        assert [row for row in found if row.pair != "p1"] == [row for row in whole if row.pair != "p1"]
        # The same words as before: b's are a duplicate of a's, which are none of what they were themselves.
        assert [(row.name, row.duplicate_of) for row in found if row.pair == "p1"] == [("a/0", None), ("b/0", "a/0")]
        moved = tmp_path / "there" / "a.png"
        picture.parent.rename(moved.parent)
        shown = pair(2, query=Item("q", images=(moved,)))
        assert asked_for(pair(0), edited, shown) == 0
        Image.new("RGB", (64, 64)).save(moved)
        assert asked_for(shown) == 2
        # Rows of earlier releases don't say what they are about, and count.
        old = [
            {name: value for name, value in dataclasses.asdict(row).items() if name != "content"}
            for row in rows(tmp_path)
        ]
        (tmp_path / RATIONALES).write_text("".join(json.dumps(row) + "\n" for row in old))
        assert asked_for(pair(0), pair(1), shown) == 0
    assert len(rows(tmp_path)) == 6


def test_many_failures_in_a_row_end_the_run(tmp_path: Path) -> None:
    chat = Chat(lambda _: Fail(400, "unknown parameter seed"))
    with serve(chat) as url, pytest.raises(ModelError, match=r"'w': 25 requests in a row failed.*unknown parameter"):
        write_rationales(pairs(500), RationaleConfig((server(url),)), tmp_path)
    assert len(rows(tmp_path)) == FAILURES_IN_A_ROW
    assert len(chat.asked) < 100


def test_a_refused_key_leaves_the_folder_free_for_another_configuration(tmp_path: Path) -> None:
    chat = Chat(echo, needs_key=True)
    with serve(chat) as url:
        with pytest.raises(ModelError, match="HTTP 401"):
            write_rationales(pairs(1), RationaleConfig((server(url),)), tmp_path)
        chat.needs_key = False
        write_rationales(pairs(1), RationaleConfig((server(url, model="other"),)), tmp_path)
    assert len(rows(tmp_path)) == 2


def test_missing_media_stop_the_run_before_anybody_is_asked(tmp_path: Path) -> None:
    lost = tmp_path / "lost.jpg"
    some = [Pairs("shapes", (pair(0), pair(1, positive=Item("t", images=(lost,)))))]
    chat = Chat(echo)
    with serve(chat) as url, pytest.raises(DataError, match=r"shapes, pair 'p1': .*lost\.jpg, of its positive, is mis"):
        write_rationales(some, RationaleConfig((server(url),)), tmp_path / "out")
    assert not chat.asked


def test_equal_words_are_marked_as_duplicates(tmp_path: Path) -> None:
    said: dict[str, Callable[[Asked], Reply]] = {
        "a": lambda asked: Say("A red  circle."),
        "b": lambda asked: Say("a red circle."),
        "c": lambda asked: Say("a blue square" if "question 0" in asked.text else "a red circle."),
    }
    with serve(Chat(lambda asked: said[asked.body["model"]](asked))) as url:
        workers = tuple(server(url, name, model=name) for name in "abc")
        config = RationaleConfig(workers, samples=2, sides=("query",))
        summary = write_rationales(pairs(2), config, tmp_path)
        marked = {(row.pair, row.worker, row.sample): row.duplicate_of for row in rows(tmp_path)}
        assert {name: by for name, by in marked.items() if by != "a/0"} == {
            ("p0", "a", 0): None, ("p1", "a", 0): None, ("p0", "c", 0): None, ("p0", "c", 1): "c/0"
        }  # fmt: skip
        assert [worker.duplicate_share for worker in summary.workers] == [0.5, 1.0, 0.75]
        assert [worker.usable for worker in summary.workers] == [2, 0, 1]
        # The same when the run was cut between the samples of a pair.
        whole, path = contents(tmp_path), tmp_path / RATIONALES
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:9]))
        write_rationales(pairs(2), config, tmp_path)
    assert contents(tmp_path) == whole


def test_empty_answers_and_loops_are_told_apart_from_rationales(tmp_path: Path) -> None:
    loop = "I look at it. " + "The circle is red and round. " * 6
    script: list[Reply] = [Say(" <think></think> "), Say(loop), Say("cut o", finish="length"), Say("whole")]
    with serve(Chat(echo, script)) as url:
        summary = write_rationales(pairs(2), RationaleConfig((server(url, max_parallel=1),)), tmp_path).workers[0]
    assert [row.finish for row in rows(tmp_path)] == ["empty", "loop", "length", "stop"]
    assert [row.usable for row in rows(tmp_path)] == [False, False, False, True]
    assert (summary.empty_share, summary.loop_share, summary.usable) == (0.25, 0.25, 1)
    assert summary.finish == {"empty": 1, "length": 1, "loop": 1, "stop": 1}


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("the circle is red " * 7, True),
        ("so " * 30, True),
        ("Fine so far. " + "wait, let me look again. " * 8 + "wait, let", True),  # cut in mid-phrase
        ("Fine so far. " + "wait, let me look again. " * 8 + "wai", True),  # in mid-word
        ("红色的圆形" * 6, True),
        ("the circle is red " * 7 + "and that is all there is to say about it", False),
        ("no no no", False),
        ("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen", False),
        ("", False),
    ],
)
def test_loops(text: str, loops: bool) -> None:
    assert is_loop(text) is loops


def test_clean() -> None:
    assert clean("  a\t b <emb>\r\n\n\n\n c<|im_end|> <x> 1 < 2 ") == "a b\n\nc <x> 1 < 2"


def test_short_positives_and_sides_can_be_left_out(tmp_path: Path) -> None:
    some = [Pairs("shapes", (pair(0, positive=Item("t", text="dog")), pair(1)))]
    with serve(Chat(echo)) as url:
        config = RationaleConfig((server(url),), skip_short_texts=5)
        summary = write_rationales(some, config, tmp_path / "a")
        assert {(row.pair, row.side) for row in rows(tmp_path / "a")} == {
            ("p0", "query"), ("p1", "query"), ("p1", "positive")
        }  # fmt: skip
        assert (summary.pair_sides, summary.skipped_short) == (3, 1)
        write_rationales(some, RationaleConfig((server(url),), sides=("positive",), pairs_per_set=1), tmp_path / "b")
    assert [key(row)[1:3] for row in rows(tmp_path / "b")] == [("p0", "positive")]


def test_more_may_be_added_and_nothing_mixed(tmp_path: Path) -> None:
    with serve(Chat(echo)) as url:
        first = RationaleConfig((server(url, "a"),), sides=("query",))
        write_rationales(pairs(2), first, tmp_path)
        more = RationaleConfig((server(url, "a", max_parallel=1), server(url, "b")), samples=2)
        write_rationales(pairs(3), more, tmp_path)
        assert len(rows(tmp_path)) == len({key(row) for row in rows(tmp_path)}) == 24
        before = (tmp_path / RATIONALES).read_bytes()
        for other, difference in (
            (dataclasses.replace(more, workers=(server(url, "a", temperature=0.1), server(url, "b"))),
             "worker 'a': temperature was 0.7, is 0.1"),
            (dataclasses.replace(more, workers=(server(url, "a"),)), "worker 'b' is gone"),
            (dataclasses.replace(more, samples=1), "samples was 2, is 1"),
            (dataclasses.replace(more, sides=("query",)), "sides: 'positive' is gone"),
            (dataclasses.replace(more, request="go"), "request was 'Write down"),
        ):  # fmt: skip
            with pytest.raises(OptionError, match="24 rationales of another configuration") as error:
                write_rationales(pairs(3), other, tmp_path)
            assert difference in str(error.value)
            assert "or write to another folder" in str(error.value)
    assert (tmp_path / RATIONALES).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": []}, "workers must be a list of at least one worker"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"sides": ["query", "query"]}, "sides must be one or both of"),
        ({"workers": [{"name": "a/b", "model": "m"}]}, "workers.name must be letters"),
        ({"workers": [{"name": "a", "model": "m"}] * 2}, "workers.name must be unique, not 'a'"),
        ({"workers": [{"name": "a"}]}, "worker 'a': model must be the name of a model, not ''"),
        ({"workers": [{"name": "a", "model": "m", "top_p": 0}]}, "worker 'a': top_p must be above 0"),
        ({"workers": [{"name": "a", "model": "m", "temperature": 0}], "samples": 2}, "the same text 2 times"),
        ({"workers": [{"name": "a", "model": "m", "backend": "endpoint"}]}, "base_url must be an address such as"),
    ],
)
def test_values_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    values = {"workers": [{"name": "w", "model": "m"}]} | changes
    with pytest.raises(OptionError) as error:
        check_config(build_config(RationaleConfig, values))
    assert message in str(error.value)


def write_table(folder: Path, some: Sequence[tuple[str, str, Side, str, int, str]]) -> None:
    names = ("task", "query_id", "side", "worker", "sample", "text", "right")
    table = pa.Table.from_pylist([dict(zip(names, (*row, True), strict=True)) for row in some])
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "worker_rationales.parquet")


def test_recorded_workers(tmp_path: Path) -> None:
    write_table(
        tmp_path / "suite",
        [
            ("shapes", "p0", "query", "precise", 0, "a circle"),
            ("shapes", "p0", "query", "wrong", 0, "a square"),
            ("shapes", "p1", "query", "precise", 0, "A circle"),
            ("other", "p0", "query", "precise", 0, "a star"),
        ],
    )
    some = [Pairs("shapes", (pair(0, rationales={"positive": "<think>it is round</think>a circle"}), pair(1)))]
    workers = tuple(WorkerConfig(name, backend="recorded", model="suite") for name in ("precise", "wrong"))
    config = RationaleConfig((*workers, WorkerConfig("own", backend="recorded")))
    summary = write_rationales(some, config, tmp_path / "out", root=tmp_path)
    assert [(row.pair, row.side, row.worker, row.text, row.finish) for row in rows(tmp_path / "out")] == [
        ("p0", "query", "precise", "a circle", "stop"),
        ("p1", "query", "precise", "A circle", "stop"),
        ("p0", "query", "wrong", "a square", "stop"),
        ("p0", "positive", "own", "it is round", "stop"),
    ]
    assert [worker.absent for worker in summary.workers] == [2, 3, 3]
    assert summary.workers[0].mean_tokens is None
    again = write_rationales(some, config, tmp_path / "out", root=tmp_path)
    assert again == summary
    # What a pair carries may change as well.
    some = [Pairs("shapes", (pair(0, rationales={"positive": "it rolls"}), pair(1)))]
    write_rationales(some, config, tmp_path / "out", root=tmp_path)
    assert [row.text for row in rows(tmp_path / "out")] == ["a circle", "A circle", "a square", "it rolls"]


def test_recorded_workers_that_are_not_there(tmp_path: Path) -> None:
    write_table(tmp_path / "suite", [("other", "p0", "query", "precise", 0, "a circle")])
    for worker, kind, message in (
        (WorkerConfig("precise", backend="recorded", model="no"), DataError, "worker_rationales.parquet is missing"),
        (WorkerConfig("precize", backend="recorded", model="suite"), UnknownNameError, "Did you mean 'precise'"),
        (WorkerConfig("precise", backend="recorded", model="suite"), DataError, "is it the data of these pairs"),
        (WorkerConfig("own", backend="recorded"), DataError, "the pairs has no rationale for any of 2"),
    ):
        with pytest.raises(kind, match=message):
            write_rationales(pairs(1), RationaleConfig((worker,)), tmp_path / "out", root=tmp_path)
    pq.write_table(pa.table({"task": ["a"]}), tmp_path / "suite" / "worker_rationales.parquet")
    with pytest.raises(DataError, match="lack the column 'query_id'"):
        write_rationales(
            pairs(1),
            RationaleConfig((WorkerConfig("precise", backend="recorded", model="suite"),)),
            tmp_path / "out",
            root=tmp_path,
        )


def local(checkpoint: Path, **changes: Any) -> WorkerConfig:
    known = WorkerConfig("tiny", model=str(checkpoint), temperature=1.0, max_new_tokens=12, batch_size=4)
    return dataclasses.replace(known, **changes)


@pytest.fixture
def media_pairs(items: list[Item]) -> list[Pairs]:
    return [Pairs("media", tuple(Pair(item.id, "media", item, Item("t", text="x")) for item in items))]


def write_local(some: list[Pairs], worker: WorkerConfig, folder: Path, samples: int = 1) -> list[RationaleRow]:
    write_rationales(some, RationaleConfig((worker,), sides=("query",), samples=samples, request="embed"), folder)
    return contents(folder)


@pytest.mark.slow
def test_a_local_worker(media_pairs: list[Pairs], random_checkpoint: Path, tmp_path: Path) -> None:
    found = write_local(media_pairs, local(random_checkpoint), tmp_path / "a", samples=2)
    assert len(found) == 2 * len(media_pairs[0])
    assert {row.finish for row in found} <= {"stop", "length", "empty"}
    assert all(1 <= (row.tokens or 0) <= 12 for row in found)
    assert not any("<|" in row.text or "think>" in row.text or "<emb>" in row.text for row in found)
    assert len({row.text for row in found}) == len(found)  # samples differ
    # Neither the batch nor what was done before changes what a row says.
    assert write_local(media_pairs, local(random_checkpoint, batch_size=1), tmp_path / "b", samples=2) == found
    path = tmp_path / "a" / RATIONALES
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert write_local(media_pairs, local(random_checkpoint), tmp_path / "a", samples=2) == found
    other = write_local(media_pairs, local(random_checkpoint, seed=1), tmp_path / "c", samples=2)
    assert all(one.text != another.text for one, another in zip(found, other, strict=True))


def test_a_local_thinking_worker_that_never_closes_its_thoughts(
    media_pairs: list[Pairs], random_checkpoint: Path, tmp_path: Path
) -> None:
    found = write_local(media_pairs, local(random_checkpoint, kind="thinking", temperature=0.5), tmp_path)
    assert {row.finish for row in found} <= {"length", "stop", "empty"}
    assert "length" in {row.finish for row in found}


def test_a_local_worker_that_loops_is_stopped(
    media_pairs: list[Pairs], random_checkpoint: Path, tmp_path: Path
) -> None:
    # Untrained and greedy it says one word again and again.
    found = write_local(media_pairs, local(random_checkpoint, temperature=0.0, max_new_tokens=500), tmp_path)
    assert {row.finish for row in found} <= {"loop", "empty"}
    assert all((row.tokens or 0) < 200 for row in found)


def test_top_p_keeps_the_likely_tokens_alone(media_pairs: list[Pairs], random_checkpoint: Path, tmp_path: Path) -> None:
    greedy = write_local(media_pairs, local(random_checkpoint, temperature=0.0), tmp_path / "a")
    narrow = write_local(media_pairs, local(random_checkpoint, top_p=1e-6), tmp_path / "b")
    assert [row.text for row in narrow] == [row.text for row in greedy]


def test_samples_follow_the_models_probabilities() -> None:
    import torch

    from mmemb_r1_model.rationales.local import _Sampling

    logits = torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    sampling = _Sampling(WorkerConfig(temperature=2.0), [3], [3], torch.device("cpu"))
    drawn = torch.stack([sampling(logits, logits).argmax() for _ in range(20_000)])
    shares = drawn.bincount(minlength=4) / len(drawn)
    expected = torch.tensor([0.0, 1.0, 2.0]).div(2.0).softmax(-1)
    assert shares[3] == 0  # banned
    assert torch.allclose(shares[:3], expected, atol=0.015)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny LLaVA, whose processor needs no torchvision: any architecture but Qwen3-VL goes its way."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaProcessor
    from transformers import LlavaForConditionalGeneration as Llava

    folder = tmp_path_factory.mktemp("llava")
    tokenizer = build_tokenizer(["a red circle left of a blue square"] * 50, 512)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    end, pad, image = (tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>", "<image>"))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=end, pad_token_id=pad, bos_token_id=None, **sizes)
    vision = CLIPVisionConfig(image_size=32, patch_size=16, **sizes)
    model = Llava(LlavaConfig(vision_config=vision, text_config=text, image_token_id=image, image_seq_length=4))
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    template = (
        "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{% for part in turn.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    processor.save_pretrained(folder)
    return folder


def test_a_local_worker_of_another_architecture(media_pairs: list[Pairs], llava: Path, tmp_path: Path) -> None:
    odd = Item("odd", text="an <image> placeholder in <|im_end|> a caption")
    some = [*media_pairs, Pairs("odd", (pair(0, query=odd),))]
    found = write_local(some, local(llava), tmp_path / "a")
    assert len(found) == len(media_pairs[0]) + 1
    assert not any("<|" in row.text or "<image>" in row.text for row in found)
    assert write_local(some, local(llava, batch_size=1), tmp_path / "b") == found


def test_a_local_worker_that_cannot_be_loaded(tmp_path: Path, random_checkpoint: Path) -> None:
    (tmp_path / "empty").mkdir()
    for worker, kind, message in (
        (local(tmp_path / "empty"), ModelError, "is neither a local folder nor"),
        (local(random_checkpoint, device="tpu9"), OptionError, "'tpu9' is no device"),
    ):
        with pytest.raises(kind, match=message):
            write_rationales(pairs(1), RationaleConfig((worker,)), tmp_path / "out")


QUERY = Item("q", text="What is left of the blue square?", instruction="Find the answer.")
POSITIVE = Item("t", text="A small red circle")


@pytest.mark.parametrize(
    ("rationale", "seen", "leaks"),
    [
        ("There is a small, red circle on the left.", QUERY, True),
        ("There is a small red circlet on the left.", QUERY, False),
        ("There is a small red circle.", dataclasses.replace(QUERY, text="Where is a small red circle?"), False),
        ("Something red.", QUERY, False),
    ],
)
def test_a_verbatim_leak(rationale: str, seen: Item, leaks: bool) -> None:
    assert leaks_verbatim(rationale, seen, POSITIVE, 12) is leaks
    assert not leaks_verbatim(rationale, seen, POSITIVE, 100)
    assert not leaks_verbatim(rationale, seen, Item("t", images=(Path("a.png"),)), 1)


def test_leaks_are_counted_and_can_be_dropped(tmp_path: Path) -> None:
    def honest_or_not(asked: Asked) -> Reply:
        return Say("It must be the answer 1." if "question 1" in asked.text else "I think.")

    with serve(Chat(honest_or_not)) as url:
        for drop in (False, True):
            config = RationaleConfig((server(url),), sides=("query",), drop_leaks=drop, min_leak_characters=10)
            summary = write_rationales(pairs(4), config, tmp_path / str(drop)).workers[0]
            assert [row.leaks for row in rows(tmp_path / str(drop))] == [False, True, False, False]
            assert (summary.leak_share, summary.usable) == (0.25, 3 if drop else 4)
    assert rows(tmp_path / "True")[1].finish == "leak"


def test_the_leak_test_tells_what_a_rationale_gives_away() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(50, 16)).astype(np.float32)
    positives = np.arange(50)
    noise = rng.normal(size=(50, 16)).astype(np.float32)
    leaking = leak_test(candidates, noise, candidates, positives)
    assert (leaking.rationale, leaking.difference) == (1.0, 1.0 - leaking.query)
    assert 0.8 < leaking.low <= leaking.difference <= leaking.high <= 1.0
    fair = leak_test(noise, noise, candidates, positives)
    assert (fair.difference, fair.low, fair.high) == (0.0, 0.0, 0.0)
    assert leak_test(candidates, noise, candidates, positives) == leaking
    with pytest.raises(DataError, match=r"expected shapes .* not \(50, 16\), \(49, 16\)"):
        leak_test(candidates, noise[1:], candidates, positives)
    with pytest.raises(DataError, match=r"positives must be in 0 … 49"):
        leak_test(candidates, noise, candidates, positives + 1)


def test_the_bootstrap_interval_has_its_width_in_closed_form() -> None:
    # 400 paired gains, 30 % of +1, 10 % of -1: mean 0.2, standard error sqrt((0.4 - 0.04) / 400) = 0.03.
    candidates = np.eye(2, dtype=np.float32)
    right, wrong = candidates[0], candidates[1]
    rationales = np.stack([*[right] * 120, *[wrong] * 40, *[right] * 240])
    queries = np.stack([*[wrong] * 120, *[right] * 40, *[right] * 240])
    found = leak_test(rationales, queries, candidates, np.zeros(400, dtype=np.int64), resamples=20_000)
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - 1.96 * 0.03, 0.2 + 1.96 * 0.03), abs=0.005)


def test_neither_torch_nor_http_is_loaded_before_a_worker_needs_it() -> None:
    code = (
        "import sys\nimport mmemb_r1_model.rationales.stage\n"
        "assert not {'torch', 'transformers', 'httpx2', 'pyarrow'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
