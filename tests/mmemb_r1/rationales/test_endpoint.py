"""Workers behind HTTP, against a real server on loopback that fails in every way it can."""

from __future__ import annotations

import base64
import dataclasses
import email.utils
import io
import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from mmeb_harness.adapter import remote
from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.disk.errors import DataError, ModelError, OptionError
from mmemb_r1_model.rationales.config import RationaleConfig, WorkerConfig, check_config
from mmemb_r1_model.rationales.endpoint import EndpointWorker
from mmemb_r1_model.rationales.workers import Answer, Ask, WorkerPrompt
from tests.mmemb_r1.loopback_chat import KEY, Asked, Break, Chat, Fail, Raw, Reply, Say, Trickle, echo, serve
from tests.patience import PATIENCE

PROMPT = WorkerPrompt("be a worker", "write")
OK = Say("all is well")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def chat() -> Chat:
    return Chat(echo)


@pytest.fixture
def worker(chat: Chat) -> Iterator[WorkerConfig]:
    with serve(chat) as url:
        yield WorkerConfig(
            name="w", backend="endpoint", model="m", base_url=url, timeout_seconds=60, max_retries=2, max_parallel=2
        )


def asks(count: int = 1, item: Item | None = None) -> list[Ask]:
    return [Ask("d", f"p{i}", "query", 0, i, item or Item(f"p{i}", text=f"text {i}")) for i in range(count)]


def answers(worker: WorkerConfig, some: list[Ask] | None = None) -> list[Answer]:
    with closing(EndpointWorker(worker, PROMPT).answers(some or asks())) as found:
        return [answer for answer in found if answer is not None]


def only(worker: WorkerConfig, item: Item | None = None) -> Answer:
    (answer,) = answers(worker, asks(1, item))
    return answer


def test_an_answer_and_what_was_asked(chat: Chat, worker: WorkerConfig) -> None:
    worker = dataclasses.replace(worker, temperature=0.3, top_p=0.9, max_new_tokens=33)
    chat.script = [Say(" I see <emb> a  circle.<|im_end|> ", tokens=12)]
    answer = only(worker, Item("x", text="which shape?", instruction="Find the caption."))
    assert (answer.text, answer.tokens, answer.finish) == ("I see a circle.", 12, "stop")
    assert answer.seconds is not None
    (asked,) = chat.asked
    assert {name: asked.body[name] for name in ("model", "temperature", "top_p", "max_tokens", "seed")} == {
        "model": "m", "temperature": 0.3, "top_p": 0.9, "max_tokens": 33, "seed": 0
    }  # fmt: skip
    assert asked.body["messages"][0] == {"role": "system", "content": "be a worker"}
    assert asked.text == "The task it is meant for: Find the caption.\n\nThe input's text:\nwhich shape?\n\nwrite"
    assert "authorization" not in asked.headers


def test_pictures_go_as_data_urls_of_their_true_type(chat: Chat, worker: WorkerConfig, tmp_path: Path) -> None:
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    Image.new("RGB", (4, 4), colours["red"]).save(tmp_path / "a.jpg", "PNG")  # the name lies
    Image.new("RGB", (4, 4), colours["blue"]).save(tmp_path / "b.bmp")  # servers don't take it
    only(worker, Item("x", frames=(tmp_path / "a.jpg", tmp_path / "b.bmp")))
    (asked,) = chat.asked
    found = []
    for url in asked.images:
        head, _, content = url.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.format == "PNG"
            found.append(image.getpixel((0, 0)))
    assert found == list(colours.values())
    assert asked.text.startswith("The pictures are 2 frames of one video, in order.")


def test_several_pictures_stand_where_the_text_has_them(chat: Chat, worker: WorkerConfig, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    only(worker, Item("x", text="first then", images=(path, path), places=(6, 10), instruction="Find it."))
    (asked,) = chat.asked
    parts = [part.get("text", "picture") for part in asked.body["messages"][1]["content"]]
    told = "The task it is meant for: Find it.\n\nThe input's text:\nfirst "
    assert parts == [told, "picture", "then", "picture", "\n\nwrite"]


def test_a_picture_that_cannot_be_opened_is_named(worker: WorkerConfig, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png can't be opened"):
        only(worker, Item("x", images=(tmp_path / "a.png",)))


@pytest.mark.parametrize(
    "failure",
    [Fail(429), Fail(500), Fail(503), Fail(408), Break(), Raw(b"{not json"), Raw(b'{"error": {"message": "busy"}}')],
    ids=str,
)
def test_what_may_pass_is_tried_again(failure: Reply, chat: Chat, worker: WorkerConfig) -> None:
    chat.script = [failure, failure, OK]
    assert only(worker).text == "all is well"
    assert len(chat.asked) == 3


def test_what_does_not_pass_is_a_failed_row(chat: Chat, worker: WorkerConfig) -> None:
    chat.script = [Fail(500, "on fire")] * 3
    assert only(worker).finish == "error: HTTP 500: on fire, 3 attempts"
    assert len(chat.asked) == 3


@pytest.mark.parametrize("slow", [Say("late", seconds=PATIENCE), Trickle(PATIENCE)], ids=["silent", "trickling"])
def test_an_answer_that_takes_too_long(slow: Reply, chat: Chat, worker: WorkerConfig) -> None:
    chat.script = [slow, OK]
    started = time.monotonic()
    assert only(dataclasses.replace(worker, timeout_seconds=2)).text == "all is well"
    assert time.monotonic() - started < PATIENCE / 10  # not until the slow answer has come
    chat.script = [slow]
    answer = only(dataclasses.replace(worker, timeout_seconds=0.2, max_retries=0))
    assert answer.finish.endswith("answer within 0.2 seconds, 1 attempts")


@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "date"])
def test_retry_after_is_kept_by_all_threads(dated: bool, chat: Chat, worker: WorkerConfig) -> None:
    allowed: list[float] = []

    def reply(asked: Asked) -> Reply:
        if allowed:
            return dataclasses.replace(echo(asked), seconds=0.3)
        # A date has whole seconds: of two from now, between one and two are left.
        date = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
        left = (date - datetime.now(UTC)).total_seconds() if dated else 1.0
        allowed.append(time.monotonic() + left)
        return Fail(429, headers={"Retry-After": email.utils.format_datetime(date, usegmt=True) if dated else "1"})

    chat.reply = reply
    assert all(answer.finish == "stop" for answer in answers(worker, asks(4)))
    begun = [asked.at for asked in chat.asked]
    assert len(begun) == 5
    # The other thread had begun its request already, whose answer takes a while.
    assert sum(at < allowed[0] - 0.05 for at in begun) <= 2


def test_requests_a_minute_are_observed(chat: Chat, worker: WorkerConfig) -> None:
    chat.script = [Fail(500)]  # a second attempt counts as well
    started = time.monotonic()
    answers(dataclasses.replace(worker, requests_per_minute=600, max_parallel=8), asks(7))
    begun = [asked.at - started for asked in chat.asked]
    assert len(begun) == 8
    assert all(at >= 0.1 * place for place, at in enumerate(begun))


def test_no_more_are_under_way_than_allowed(chat: Chat, worker: WorkerConfig) -> None:
    chat.reply = lambda asked: dataclasses.replace(echo(asked), seconds=0.05)
    found = answers(dataclasses.replace(worker, max_parallel=3), asks(12))
    assert chat.most_under_way == 3
    assert len(found) == 12


def test_answers_come_in_order_and_few_asks_are_taken_ahead(chat: Chat, worker: WorkerConfig) -> None:
    chat.reply = lambda asked: Say(asked.text, seconds=0.2 if "text 0\n" in asked.text else 0.0)
    taken: list[int] = []

    def source() -> Iterator[Ask]:
        for ask in asks(40):
            taken.append(ask.seed)
            yield ask

    with closing(EndpointWorker(worker, PROMPT).answers(source())) as found:
        assert "text 0" in str(next(found))
        assert len(taken) <= 2 * remote.ASKS_AHEAD
        texts = [answer.text for answer in found if answer is not None]
    assert [text.split("\n")[1] for text in texts] == [f"text {i}" for i in range(1, 40)]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_input_that_is_refused_does_not_end_the_run(status: int, chat: Chat, worker: WorkerConfig) -> None:
    chat.script = [Fail(status, "maximum context length is 8192 tokens"), OK]
    found = answers(dataclasses.replace(worker, max_parallel=1), asks(2))
    assert found[0].finish == f"error: HTTP {status}: maximum context length is 8192 tokens"
    assert found[1].finish == "stop"
    assert len(chat.asked) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "name the variable"), (403, "name the variable"), (404, "check base_url"), (402, "put right"), (307, "put")],
)
def test_a_worker_that_is_refused_ends_the_run_at_once(
    status: int, advice: str, chat: Chat, worker: WorkerConfig
) -> None:
    chat.reply = lambda _: Fail(status, "go away", {"Location": "http://elsewhere/"} if status == 307 else {})
    with pytest.raises(ModelError, match=f"worker 'w'.*HTTP {status}: go away; .*{advice}"):
        answers(worker, asks(20))
    assert len(chat.asked) <= 2 * remote.ASKS_AHEAD


def test_nobody_at_the_address(worker: WorkerConfig) -> None:
    with pytest.raises(ModelError, match=r"nobody answers at http://127\.0\.0\.1:9/v1"):
        answers(dataclasses.replace(worker, base_url="http://127.0.0.1:9/v1"))


def test_the_key_is_sent_and_never_shown(
    chat: Chat, worker: WorkerConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chat.needs_key = True
    worker = dataclasses.replace(worker, api_key_env="LOOPBACK_KEY", max_retries=0)
    with pytest.raises(OptionError, match="LOOPBACK_KEY is not set"):
        answers(worker)
    monkeypatch.setenv("LOOPBACK_KEY", f" {KEY}\n")
    chat.script = [Say(f"your key is {KEY}"), Fail(400, f"odd: {KEY}")]
    caplog.set_level(0)
    first, second = answers(dataclasses.replace(worker, max_parallel=1), asks(2))
    assert first.text == "your key is [key]"
    assert second.finish == "error: HTTP 400: odd: [key]"
    assert [asked.headers["authorization"] for asked in chat.asked] == [f"Bearer {KEY}"] * 2
    wrong = "sk-Wrong-98765"
    monkeypatch.setenv("LOOPBACK_KEY", wrong)
    with pytest.raises(ModelError) as refused:
        answers(worker)
    assert "bad key: Bearer [key]; is the key in $LOOPBACK_KEY right?" in str(refused.value)
    monkeypatch.setenv("LOOPBACK_KEY", "sk-half\nsk-other")
    with pytest.raises(OptionError) as malformed:
        answers(worker)
    shown = f"{refused.value!r}{malformed.value!r}{caplog.text}"
    assert not any(key in shown for key in (KEY, wrong, "sk-half"))


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({"api_key_env": "sk-proj-1234"}, "sk-proj-1234"),
        ({"base_url": "https://me:hunter2@host/v1"}, "hunter2"),
        ({"base_url": "https://host/v1?key=hunter2"}, "hunter2"),
    ],
)
def test_a_secret_in_the_configuration_is_refused_unseen(
    changes: dict[str, str], secret: str, worker: WorkerConfig
) -> None:
    with pytest.raises(OptionError) as error:
        check_config(RationaleConfig((dataclasses.replace(worker, **changes),)))  # type: ignore[arg-type]
    assert secret not in str(error.value)


THOUGHT = "First I look. Then I know."


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (Say("a circle", thoughts=THOUGHT), THOUGHT, "stop"),
        (Say("a circle", thoughts=THOUGHT, field="reasoning"), THOUGHT, "stop"),
        (Say(f"<think>\n{THOUGHT}\n</think>\n\na circle"), THOUGHT, "stop"),
        (Say(f"{THOUGHT}</think>a circle"), THOUGHT, "stop"),  # the template has opened the thoughts
        (Say(None, thoughts=THOUGHT, finish="length"), THOUGHT, "length"),
        (Say(f"<think>{THOUGHT}", finish="length"), THOUGHT, "length"),
        (Say(f"<think>{THOUGHT}", finish="stop"), THOUGHT, "length"),  # never closed
        (Say(THOUGHT, finish="length"), THOUGHT, "length"),
        (Say(""), "", "stop"),
    ],
)
def test_a_thinking_models_thoughts_are_the_rationale(
    reply: Say, text: str, finish: str, chat: Chat, worker: WorkerConfig
) -> None:
    chat.script = [reply]
    answer = only(dataclasses.replace(worker, kind="thinking"))
    assert (answer.text, answer.finish) == (text, finish)


def test_an_answer_without_thoughts_does_not_pass_for_them(chat: Chat, worker: WorkerConfig) -> None:
    chat.script = [OK]
    answer = only(dataclasses.replace(worker, kind="thinking"))
    assert answer.text == ""
    assert answer.finish.startswith("error: a thinking model gave no thoughts")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Say("a circle", finish="length"), ("a circle", 7, "length")),
        (Say("a circle", finish=None, tokens=None), ("a circle", None, "stop")),
        (Say("<think>hm</think>\na circle", thoughts="hm"), ("a circle", 7, "stop")),
        (Say(None), ("", 7, "stop")),
        (Raw(b'{"choices": []}'), ("", None, "stop")),
        (Raw(json.dumps({"choices": [{"message": {"content": [{"type": "text", "text": "a"}]}}]}).encode()),
         ("a", None, "stop")),
        (Raw(b'{"choices": [{"message": {"content": "half \\ud800 a sign"}}]}'), ("half ? a sign", None, "stop")),
        (Say("a ci", finish="content_filter"), ("a ci", 7, "error: finish reason 'content_filter'")),
    ],
)  # fmt: skip
def test_other_models_answers(
    reply: Reply, answer: tuple[str, int | None, str], chat: Chat, worker: WorkerConfig
) -> None:
    chat.script = [reply]
    found = only(dataclasses.replace(worker, kind="api"))
    assert (found.text, found.tokens, found.finish) == answer


def test_whoever_stops_listening_does_not_wait_for_the_rest(chat: Chat, worker: WorkerConfig) -> None:
    chat.reply = lambda asked: Say("x", seconds=0.0 if "text 0\n" in asked.text else PATIENCE)
    started = time.monotonic()
    with closing(EndpointWorker(worker, PROMPT).answers(asks(10))) as found:
        next(found)
    assert time.monotonic() - started < PATIENCE / 10  # not until the others have come
