"""A run on Ray: actors that die, hang, differ or run out of memory; nodes that come and go; Ctrl-C."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmeb_harness import BudgetedEmbedder, DataError, Item, ModelError, OptionError, ResultError, UnknownNameError
from mmeb_harness.core.errors import PluginError
from mmeb_harness.core.failures import Failure
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.chunks import Batch, Chunk
from mmeb_harness.encode.memory import MemorySink
from mmeb_harness.spread import ray_cluster, ray_engine
from mmeb_harness.spread.ray_worker import Answer, ChunkWorker, Introduction, Setup
from tests.harness.company import install
from tests.harness.processes import ROOT, Place, kill
from tests.patience import wait_until

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow


def chunk(name: str, batches: int = 2, size: int = 4) -> Chunk:
    def batch(number: int) -> Batch:
        items = [Item(f"{name}{number}-{i}", text=f"{name} {number} {i}") for i in range(size)]
        return Batch(tuple((item.id, item) for item in items), size)

    return Chunk("query", tuple(batch(number) for number in range(batches)))


def setup_of(folder: Path, **args: str) -> Setup:
    return Setup(ModelSpec("company", args), 16_384, None, folder)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        path = install(tmp_path_factory.mktemp("plugin"))
        patched.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray leaves a token there
        patched.syspath_prepend(path)
        patched.setenv("PYTHONPATH", os.pathsep.join([path, str(ROOT), str(ROOT / "tasks"), str(ROOT / "baselines")]))
        yield
    sys.modules.pop("company_model", None)


@pytest.fixture(scope="module")
def cluster(plugin: None) -> Iterator[Cluster]:
    """Of this process, which ends as before once it is no driver any more.

    And once it has no cluster any more: what tests fork later has this process's answer to SIGTERM.
    """
    alone = signal.getsignal(signal.SIGTERM)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    before = signal.getsignal(signal.SIGTERM)
    with ray_cluster.connected(made.address):
        assert signal.getsignal(signal.SIGTERM) != before
        yield made
    assert signal.getsignal(signal.SIGTERM) == before
    made.shutdown()
    signal.signal(signal.SIGTERM, alone)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(ray_engine, "POLL_SECONDS", 0.1)


def encoder(folder: Path, notes: list[str], workers: int = 1, **args: str) -> ray_engine.RayEncoder:
    made = ray_engine.RayEncoder(setup_of(folder, **args), workers, True, notes.append)
    made.introduction()
    return made


def test_actors_die_and_nothing_else_happens(place: Place) -> None:
    """Both of them: what is left is encoded by processes that Ray started again, however slow this machine is."""
    process = place.start(*place.run("ray", "--ray", "--ray-workers", "2", held=True))
    for worker in place.wait_for_workers("ray", 2, process):
        kill(worker)
    place.let_go("ray")
    done = place.end(process)
    assert done.returncode == 0, done.stderr
    assert place.rankings("ray") == place.rankings("alone")
    times = place.encoded("ray")
    assert set(times) == set(place.encoded("alone"))
    assert sum(times.values()) - len(times) <= 2  # the chunks they were at
    assert len(list(place.marks("ray").iterdir())) in (3, 4)
    assert "is gone (it died or can't be reached); its chunk of" in done.stdout


def test_ctrl_c_keeps_what_is_under_way_and_the_same_command_goes_on(place: Place) -> None:
    words = place.run("stopped", "--ray", "--ray-workers", "2", held=True)
    process = place.start(*words)
    place.wait_for_workers("stopped", 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: Ray's processes get it as well
    assert process.stdout is not None
    assert any("SIGINT: finishing what is under way" in line for line in process.stdout)
    place.let_go("stopped")  # it has been told; its actors have not begun another chunk meanwhile
    done = place.end(process)
    assert done.returncode == 130, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "error: stopped; what is done is kept, the same command goes on from there"
    begun = place.encoded("stopped")
    assert len(begun) < len(place.encoded("alone"))
    assert place.call(*place.run("stopped")).returncode == 0  # without Ray: who encodes doesn't matter
    assert place.rankings("stopped") == place.rankings("alone")
    again = place.encoded("stopped")
    assert sum(again.values()) == len(again)  # nothing was begun in vain


def test_nodes_come_and_go(cluster: Cluster, impatient: None, tmp_path: Path) -> None:
    """Actors wait until a node has gone."""
    notes, sink, gate = [], MemorySink(), tmp_path / "gate"
    setup = Setup(ModelSpec("company", {"gate": str(gate)}), 16_384, None, tmp_path)
    driver = ray_engine.RayEncoder(setup, None, False, notes.append)
    driver.introduction()
    chunks = [chunk(f"c{number}-") for number in range(12)]
    with ThreadPoolExecutor(1) as pool:
        encoded = pool.submit(driver.encode, chunks, sink, lambda _: None)
        node = cluster.add_node(num_cpus=2)
        wait_until(lambda: any("2 actors, 2 CPUs each" in line for line in notes) and driver._busy() == 2)
        cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: any("is gone" in line for line in notes))
        gate.touch()
        encoded.result()
    assert {key for keys, _ in sink.taken for key in keys} == {key for chunk in chunks for key, _ in chunk.keyed}


def test_an_actor_runs_out_of_memory_and_goes_on_in_smaller_batches(cluster: Cluster, tmp_path: Path) -> None:
    notes: list[str] = []
    sink = MemorySink()
    encoder(tmp_path, notes, trouble="memory").encode([chunk("a", 2, 16)], sink, lambda _: None)
    assert sorted(key for keys, _ in sink.taken for key in keys) == sorted(key for key, _ in chunk("a", 2, 16).keyed)
    assert any("out of memory (all gone); going on with batches of at most" in line for line in notes)


def test_a_chunk_that_takes_actors_along_ends_the_run(cluster: Cluster, impatient: None, tmp_path: Path) -> None:
    notes: list[str] = []
    with pytest.raises(ModelError, match=r"3 actors died of the chunk of items 'a0-0', 'a0-1', 'a0-2' and 5 more"):
        encoder(tmp_path, notes, trouble="death").encode([chunk("a")], MemorySink(), lambda _: None)
    assert sum("its chunk of 8 items comes again" in line for line in notes) == 3


def test_an_actor_that_dies_whenever_it_starts_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="an actor died before it was ready, and Ray has given it up: The actor died"):
        encoder(tmp_path, [], trouble="stillborn", marks=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3


def test_an_actor_that_was_started_again_says_who_it_is_first(plugin: None, tmp_path: Path) -> None:
    worker = ChunkWorker(setup_of(tmp_path))
    assert isinstance(worker.encode(chunk("a")), Introduction)
    assert isinstance(worker.encode(chunk("a")), Answer)


def test_an_actor_that_dies_between_chunks_is_started_again_and_in_the_end_replaced(
    cluster: Cluster, impatient: None, tmp_path: Path
) -> None:
    driver, sink = encoder(tmp_path, []), MemorySink()
    first = driver.introduction().pid
    for name in "abcd":
        driver.encode([chunk(name)], sink, lambda _: None)
        (actor,) = driver._actors
        kill(actor.said.pid)
    assert actor.said.pid != first
    assert {key for keys, _ in sink.taken for key in keys} == {key for name in "abcd" for key, _ in chunk(name).keyed}


def test_a_hanging_actor_is_ended(
    cluster: Cluster, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "HANG_SECONDS", 0.5)
    with pytest.raises(ModelError, match=r"3 actors died of the chunk .*, the last: no answer for"):
        encoder(tmp_path, [], trouble="hang").encode([chunk("a")], MemorySink(), lambda _: None)


def test_actors_that_compute_differently_are_refused(cluster: Cluster, impatient: None, tmp_path: Path) -> None:
    slow = encoder(tmp_path, [], 2, trouble="other", seconds="1")
    with pytest.raises(ResultError, match=r"an actor on .* has model setting process \d+, the first one, on .*, \d+"):
        slow.encode([chunk(f"c{number}-") for number in range(60)], MemorySink(), lambda _: None)


def test_a_run_without_actors_ends_after_a_while(
    cluster: Cluster, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "PATIENCE_SECONDS", 0.3)
    setup = Setup(ModelSpec("company", {}, {"device": "cuda"}), 16_384, None, tmp_path)
    with pytest.raises(ResultError, match=r"no actor \(a GPU each\) .* it has \d+ CPUs and 0 GPUs; the same command"):
        ray_engine.RayEncoder(setup, None, True, lambda _: None).introduction()


def test_errors_of_the_model_come_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a0-0 can't be opened$"):
        encoder(tmp_path, [], trouble="data").encode([chunk("a")], MemorySink(), lambda _: None)
    told = r"'company': KeyError: 'no such thing' \(.*_get_into_trouble; called in .*\)"
    with pytest.raises(PluginError, match=told) as raised:
        encoder(tmp_path, [], trouble="bug").encode([chunk("a")], MemorySink(), lambda _: None)
    assert "_get_into_trouble" in raised.value.__notes__[0]
    with pytest.raises(UnknownNameError, match="no argument of model 'company' named 'colour'"):
        encoder(tmp_path, [], colour="red")


def test_on_several_machines_an_error_names_its_node_and_different_processors_are_said(
    cluster: Cluster, tmp_path: Path
) -> None:
    notes: list[str] = []
    driver = ray_engine.RayEncoder(setup_of(tmp_path, trouble="data"), 1, False, notes.append)
    first = driver.introduction()
    driver._welcome(driver._actors[0], dataclasses.replace(first, processors="others"))
    (note,) = notes
    assert note.startswith("the actors have different processors (")
    with pytest.raises(
        DataError, match=r"can't be opened \(on node .*; data and model have to lie at the same path on"
    ):
        driver.encode([chunk("a")], MemorySink(), lambda _: None)


def test_what_an_actor_takes_of_its_node() -> None:
    spec, gpus, cpus = ModelSpec("company"), {"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}
    assert ray_cluster.needs_of(spec, gpus, None) == ray_cluster.Needs(1, 1)
    assert ray_cluster.needs_of(spec, cpus, None) == ray_cluster.Needs(2, 0)
    assert ray_cluster.needs_of(spec, cpus, 3) == ray_cluster.Needs(1, 0)
    on_cpu = ModelSpec("company", {}, {"device": "cpu"})
    assert ray_cluster.needs_of(on_cpu, gpus, 4) == ray_cluster.Needs(1, 0)
    assert ray_cluster.needs_of(ModelSpec("company", {"device": "cuda"}), cpus, None) == ray_cluster.Needs(1, 1)
    with pytest.raises(OptionError, match="--device cuda:1: an actor of --ray sees one GPU"):
        ray_cluster.needs_of(ModelSpec("company", {}, {"device": "cuda:1"}), gpus, None)
    assert ray_cluster.room_for(ray_cluster.Needs(1, 1), [gpus, cpus, gpus]) == 4
    assert ray_cluster.room_for(ray_cluster.Needs(2, 0), [cpus, {"CPU": 3.0}]) == 3
    assert ray_cluster.room_for(ray_cluster.Needs(1, 1), [cpus]) == 1


def test_the_driver_needs_neither_weights_nor_gpu_but_the_same_model(plugin: None, tmp_path: Path) -> None:
    first = ChunkWorker(setup_of(tmp_path)).introduce()
    assert isinstance(first, Introduction)
    notes: list[str] = []
    other = dataclasses.replace(first, identity={**first.identity, "numpy": "1.0"})
    model = ray_engine.driver_model(ModelSpec("company", {}, {"device": None}), other, notes.append)
    assert len(notes) == 1
    assert notes[0].endswith(", there 1.0")
    assert (model.info,) == first.infos
    assert isinstance(model, BudgetedEmbedder)
    assert model.cost(Item("a", text="eight ch"), "query") == 3
    with pytest.raises(ResultError, match=r"this machine has model 'random', an actor on .* 'company'"):
        ray_engine.driver_model(ModelSpec("random"), first, notes.append)


def test_an_actor_counts_each_chunk_by_itself(plugin: None, tmp_path: Path) -> None:
    worker = ChunkWorker(setup_of(tmp_path))
    worker.introduce()
    answers = [worker.encode(chunk(name)) for name in "ab"]
    assert all(isinstance(answer, Answer) for answer in answers)
    assert answers[0].usage is not answers[1].usage
    assert [len(keys) for answer in answers for keys, _ in answer.batches] == [8, 8]  # a stream's chunk comes whole


def test_an_error_that_can_not_be_pickled_still_tells() -> None:
    class LocalError(ValueError): ...

    told = Failure.of(LocalError("here")).error("In an actor")
    assert isinstance(told, RuntimeError)
    assert "LocalError: here" in str(told)
    assert told.__notes__[0].startswith("In an actor:\nTraceback") or "LocalError: here" in told.__notes__[0]


def test_no_cluster_is_one_line(place: Place) -> None:
    done = place.call(*place.run("x", "--ray", "127.0.0.1:1"))
    assert done.returncode == 2
    assert "error: --ray 127.0.0.1:1: no connection to a Ray cluster" in done.stderr.splitlines()[-1]


def test_options_without_their_use_are_refused(place: Place) -> None:
    for more, text in (
        (("--ray-workers", "2"), "without --ray there are none"),
        (("--ray-workers", "0"), "at least 1"),
    ):
        done = place.call(*place.run("x", *more))
        assert done.returncode == 2
        assert text in done.stderr
