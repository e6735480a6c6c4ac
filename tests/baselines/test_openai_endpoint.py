"""An embedding model behind HTTP, against a real server on loopback that fails in every way it can."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmeb_baselines.openai_endpoint import EndpointEmbedder, load
from PIL import Image
from rich.console import Console

from mmeb_harness import BudgetedEmbedder, DataError, Item, ModelError, OptionError, WarmableEmbedder
from mmeb_harness.adapter import remote
from mmeb_harness.core.progress import LineReporter
from mmeb_harness.encode.check import check_embedder
from mmeb_harness.run.plan import RunSettings
from tests.mmemb_r1.loopback_chat import KEY, Asked, Break, Chat, Fail, Raw, Reply, Trickle, serve
from tests.patience import PATIENCE
from tests.toy import evaluated, info_of, registered, toy_task, write_toy

WIDTH = 8
Load = Callable[..., EndpointEmbedder]


def direction(content: Any, width: int = WIDTH) -> list[float]:
    """Of any length but 1."""
    seed = int.from_bytes(hashlib.sha256(json.dumps(content).encode()).digest()[:8])
    return [float(number) for number in 3 * np.random.default_rng(seed).normal(size=width)]


def answer(vectors: Sequence[Any], indices: Sequence[Any] | None = None) -> Raw:
    places = range(len(vectors)) if indices is None else indices
    rows = [
        {"object": "embedding", "index": place, "embedding": one} for place, one in zip(places, vectors, strict=True)
    ]
    return Raw(json.dumps({"object": "list", "data": rows, "model": "m"}).encode())


def embed(asked: Asked) -> Raw:
    """Answers as asked, in reverse order: only `index` says which is whose."""
    contents = asked.body["input"] if "input" in asked.body else [asked.body["messages"]]
    vectors: list[Any] = [direction(one, asked.body.get("dimensions", WIDTH)) for one in contents]
    if asked.body["encoding_format"] == "base64":
        vectors = [base64.b64encode(np.array(one, "<f4").tobytes()).decode() for one in vectors]
    return answer(vectors[::-1], range(len(vectors))[::-1])


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def server() -> Chat:
    return Chat(embed, paths=frozenset({"embeddings"}))  # type: ignore[arg-type]


@pytest.fixture
def url(server: Chat) -> Iterator[str]:
    with serve(server) as address:
        yield address


@pytest.fixture
def make(url: str) -> Load:
    """A model that needs no request to be built."""

    def build(**changes: Any) -> EndpointEmbedder:
        return load(**{"model": "m", "base_url": url, "dimensions": WIDTH, "retries": 2, "timeout": 60.0, **changes})

    return build


def texts(count: int) -> list[Item]:
    return [Item(f"i{place}", text=f"text {place}", instruction="Find it.") for place in range(count)]


def unit(vectors: Any) -> Any:
    return np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)


def picture(path: Path, colour: str = "red") -> Path:
    Image.new("RGB", (6, 4), colour).save(path)
    return path


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_come_in_the_order_of_items_and_of_unit_length(encoding: str, server: Chat, make: Load) -> None:
    embedder = make(encoding=encoding, batch_size=3, max_parallel=2)
    found = embedder.encode(texts(7), "query").vectors
    assert np.abs(found - unit([direction(f"Find it. text {place}") for place in range(7)])).max() < 1e-6
    assert found.dtype == np.float32
    assert sorted(len(asked.body["input"]) for asked in server.asked) == [1, 3, 3]
    body = server.asked[0].body
    assert {key: body[key] for key in body if key != "input"} == {
        "model": "m", "encoding_format": encoding, "dimensions": WIDTH
    }  # fmt: skip
    assert server.most_under_way <= 2
    assert "authorization" not in server.asked[0].headers


def test_numbers_are_read_in_the_form_they_come_in(server: Chat, make: Load) -> None:
    server.script = [answer([direction("x")])]  # asked for in base64
    assert np.abs(make(encoding="base64").encode(texts(1), "query").vectors - unit([direction("x")])).max() < 1e-6


def test_the_width_is_asked_of_the_server_unless_it_is_given(server: Chat, make: Load) -> None:
    info = make(dimensions=None, revision="abc").info
    assert (info.name, info.revision, info.dimensions) == ("openai:m", "abc", WIDTH)
    assert len(server.asked) == 1
    assert "dimensions" not in server.asked[0].body
    server.asked.clear()
    short = make(dimensions=4)
    assert (short.info.dimensions, server.asked) == (4, [])
    assert short.encode(texts(2), "candidate").vectors.shape == (2, 4)


def test_what_a_result_says_of_the_model(url: str, make: Load) -> None:
    info = make(base_url=url + "/").info
    assert info.settings == {"base_url": url, "style": "input", "instruction": "text", "dimensions_asked": WIDTH}
    assert (info.revision, info.profile.instruction, info.profile.candidate_instruction) == (
        "unstated", "user text", "none"
    )  # fmt: skip
    assert make(style="messages").info.profile.instruction == "system turn"


@pytest.mark.parametrize(
    ("instruction", "role", "sent"),
    [("text", "query", "Find. cat"), ("none", "query", "cat"), ("text", "candidate", "cat")],
)
def test_where_an_instruction_stands_in_a_text(
    instruction: str, role: Any, sent: str, server: Chat, make: Load
) -> None:
    make(instruction=instruction).encode([Item("a", text="cat", instruction="Find.")], role)
    assert server.asked[0].body["input"] == [sent]


def test_an_empty_text_is_sent_as_a_space(server: Chat, make: Load) -> None:
    make().encode([Item("a"), Item("b", instruction="Find.")], "query")
    make(style="messages").encode([Item("a")], "query")
    assert server.asked[0].body["input"] == [" ", "Find."]
    assert server.asked[1].body["messages"] == [{"role": "user", "content": [{"type": "text", "text": " "}]}]


def test_messages_have_pictures_before_the_words(server: Chat, make: Load, tmp_path: Path) -> None:
    frames = tuple(picture(tmp_path / f"{colour}.png", colour) for colour in ("red", "lime"))
    items = [
        Item("a", text="what moves?", frames=frames, instruction="Answer."),
        Item("b", images=frames[:1], instruction="Describe."),
    ]
    embedder = make(style="messages", max_parallel=1)
    # Requests may be written in another process.
    embedder.encode_prepared(pickle.loads(pickle.dumps(embedder.prepare(items, "query"), protocol=5)))
    first, second = (asked.body["messages"] for asked in server.asked)
    assert first[0] == {"role": "system", "content": "Answer."}
    assert [part["type"] for part in first[1]["content"]] == ["image_url", "image_url", "text"]
    colours = []
    for part in first[1]["content"][:2]:
        head, _, content = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            colours.append(image.getpixel((0, 0)))
    assert colours == [(255, 0, 0), (0, 255, 0)]
    assert first[1]["content"][2]["text"] == "what moves?"
    assert [part["type"] for part in second[1]["content"]] == ["image_url"]
    server.asked.clear()
    make(style="messages", max_parallel=1).encode(items[1:], "candidate")
    make(style="messages", instruction="text").encode(items[1:], "query")
    assert [turn["role"] for asked in server.asked for turn in asked.body["messages"]] == ["user", "user"]
    assert server.asked[1].body["messages"][0]["content"][1]["text"] == "Describe."
    placed = Item("c", text="first then", images=frames, places=(6, 10), instruction="Compare.")
    make(style="messages", instruction="text").encode([placed], "query")
    parts = server.asked[2].body["messages"][0]["content"]
    assert [part.get("text", "picture") for part in parts] == ["Compare. first ", "picture", "then", "picture"]


@pytest.mark.slow
def test_the_adapter_keeps_its_promises(make: Load, tmp_path: Path) -> None:
    embedder = make(style="messages", max_parallel=4)
    assert isinstance(embedder, BudgetedEmbedder)
    assert isinstance(embedder, WarmableEmbedder)
    outcomes = list(check_embedder(embedder, tmp_path))
    assert [outcome.name for outcome in outcomes if not outcome.passed] == []


def test_pictures_are_refused_where_there_is_text_only(server: Chat, make: Load, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    for item, what in ((Item("q3", images=(path,)), "a picture"), (Item("q3", frames=(path,)), "frames")):
        with pytest.raises(ModelError, match=f"style=input, which has text only; item 'q3' has {what}. Use .*messages"):
            make().encode([item], "query")
    assert server.asked == []
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png can't be opened"):
        make(style="messages").encode([Item("a", images=(tmp_path / "broken.png",))], "query")


@pytest.mark.parametrize(
    "failure", [Fail(429), Fail(503), Break(), Raw(b"{not json"), Raw(b'{"error": {"message": "busy"}}')], ids=str
)
def test_what_may_pass_is_tried_again(failure: Reply, server: Chat, make: Load) -> None:
    server.script = [failure, failure]
    assert make().encode(texts(2), "query").vectors.shape == (2, WIDTH)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Fail(500, "on fire"), "HTTP 500: on fire, 3 attempts, for 2 items, 'i0' to 'i1'"),
        (Fail(429, "slow down"), "HTTP 429: slow down, 3 attempts"),
        (Break(), "connection broken .*3 attempts"),
    ],
    ids=["500", "429", "break"],
)
def test_what_does_not_pass_names_the_items(failure: Reply, message: str, server: Chat, make: Load) -> None:
    server.script = [failure] * 3
    with pytest.raises(ModelError, match=f"openai:m: {message}"):
        make().encode(texts(2), "query")


def test_retry_after_is_kept(server: Chat, make: Load) -> None:
    server.script = [Fail(429, headers={"Retry-After": "0.5"})]
    make(max_parallel=1).encode(texts(1), "query")
    first, second = (asked.at for asked in server.asked)
    assert second - first >= 0.48


def test_requests_a_minute_are_observed(server: Chat, make: Load) -> None:
    started = time.monotonic()
    make(batch_size=1, requests_per_minute=600, max_parallel=8).encode(texts(5), "query")
    assert all(asked.at - started >= 0.1 * place for place, asked in enumerate(server.asked))


def test_an_answer_that_takes_too_long(server: Chat, make: Load) -> None:
    server.script = [Trickle(PATIENCE), Trickle(PATIENCE)]
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"no whole answer within 0\.2 seconds, 2 attempts, for item 'i0'.*timeout"):
        make(timeout=0.2, retries=1).encode(texts(1), "query")
    assert time.monotonic() - started < PATIENCE / 10  # not until either answer has come


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer([direction("x")]), "returned 1 vectors for 2 items, 'i0' to 'i1'"),
        (
            answer([direction("x", 5)] * 2),
            "returned a vector of width 5 for item 'i0', expected 8; does the",
        ),
        (answer([direction("x"), [float("nan")] * WIDTH]), "returned NaN or infinity for item 'i1'"),
        (answer([[None] * WIDTH, direction("x")]), "returned no vector for item 'i0': 'None' is no number"),
        (answer([direction("x"), [0.0] * WIDTH]), "returned a vector of zeros for item 'i1'"),
        (answer([direction("x"), [direction("x")]]), r"an array of shape \(1, 8\) for item 'i1'; one vector is needed"),
        (answer([direction("x"), "@@@"]), "returned no vector for item 'i1'"),
        (answer([direction("x"), None]), "returned no vector for item 'i1': 'None' is no number"),
        (answer([direction("x"), ["a", "b"]]), "returned no vector for item 'i1'"),
        (answer([direction("x")] * 2, [0, 0]), r"vectors of indices \[0\] …, not 0 to 1"),
        (answer([direction("x")] * 2, [1, 2]), r"vectors of indices \[1, 2\] …, not 0 to 1"),
        (Raw(b'{"data": [{"embedding": [1]}, 2]}'), "returned data without index and embedding, for 2 items"),
    ],
    ids=str,
)
def test_vectors_that_cannot_be_ranked_are_named(reply: Raw, message: str, server: Chat, make: Load) -> None:
    server.reply = lambda _: reply
    with pytest.raises(ModelError, match=f"openai:m.*{message}"):
        make().encode(texts(2), "query")
    assert len(server.asked) == 1  # asking again would not help


def test_an_input_that_is_refused_is_named(server: Chat, make: Load) -> None:
    server.script = [Fail(400, "maximum context length is 8192 tokens")]
    with pytest.raises(ModelError, match=r"refuses 2 items, 'i0' to 'i1': HTTP 400: maximum .*batch_size=1 shows"):
        make().encode(texts(2), "query")


@pytest.mark.parametrize(("status", "advice"), [(401, "name the variable"), (404, "check base_url .* model 'm'")])
def test_a_model_that_is_refused_ends_at_once(status: int, advice: str, server: Chat, make: Load) -> None:
    server.reply = lambda _: Fail(status, "go away")
    with pytest.raises(ModelError, match=f"openai:m.*HTTP {status}: go away; .*{advice}"):
        make(dimensions=None)
    assert len(server.asked) == 1


def test_nobody_at_the_address() -> None:
    with pytest.raises(ModelError, match=r"openai:m: nobody answers at http://127\.0\.0\.1:9/v1"):
        load("m", "http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be between 1 and 2048, not 0"),
        ({"dimensions": 0}, "dimensions must be at least 1, not 0"),
        ({"max_parallel": 0}, "max_parallel must be at least 1"),
        ({"requests_per_minute": 0.0}, "requests_per_minute must be above 0"),
        ({"timeout": 0.0}, "timeout must be above 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"instruction": "system"}, "style=input has no system turn"),
        ({"base_url": "localhost:8000"}, "base_url must be an address such as .* not 'localhost:8000'"),
        ({"api_key_env": "LOOPBACK_KEY"}, "the environment variable LOOPBACK_KEY is not set"),
        ({"base_url": "https://api.openai.com/v1/"}, "the environment variable OPENAI_API_KEY is not set"),
    ],
)
def test_settings_that_cannot_be(
    changes: dict[str, Any], message: str, make: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(OptionError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({"api_key_env": "sk-proj-1234"}, "sk-proj-1234"),
        ({"base_url": "https://me:hunter2@host/v1"}, "hunter2"),
        ({"base_url": "me:hunter2@host/v1"}, "hunter2"),
        ({"base_url": "https://host/v1?key=hunter2"}, "hunter2"),
    ],
)
def test_a_secret_in_the_settings_is_refused_unseen(changes: dict[str, str], secret: str, make: Load) -> None:
    with pytest.raises(OptionError) as error:
        make(**changes)
    assert secret not in str(error.value)


def test_openais_key_goes_to_no_other_server(server: Chat, make: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make().encode(texts(1), "query")
    assert "authorization" not in server.asked[0].headers


def test_the_key_stands_nowhere_in_a_run(
    server: Chat, make: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    server.needs_key = True
    embedder = make(api_key_env="LOOPBACK_KEY", dimensions=None)
    write_toy(tmp_path, "toy")
    known = registered(toy_task("toy"))
    settings = RunSettings(output=tmp_path / "out", model_args={"model": "m", "api_key_env": "LOOPBACK_KEY"})
    printed = io.StringIO()
    reporter = LineReporter(Console(file=printed))
    result = evaluated(embedder, list(known.values()), known, info_of(tmp_path), settings, reporter)
    assert result.status == "finished"
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in written)
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    server.script = [Fail(400, f"odd: {KEY}")]
    with pytest.raises(ModelError, match=r"HTTP 400: odd: \[key\]") as refused:
        embedder.encode([Item("new", text="new")], "query")
    assert KEY not in f"{refused.value!r}{caplog.text}{printed.getvalue()}{embedder.info!r}"
