"""MaxSim against what it says, spelled out; ties; and that a corpus larger than the memory allowed is ranked."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import TokenVectors, Trace
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.ranking import max_sim
from mmeb_harness.ranking.corpus import FLOAT32_MARGIN
from mmeb_harness.ranking.max_sim import exact_max_sim, rank_tokens
from mmeb_harness.store.vectors import VectorStore

ROOT = Path(__file__).parents[3]


def tokens_of(*items: list[list[float]]) -> TokenVectors:
    return TokenVectors.of_items([np.array(item, dtype=np.float32) for item in items])


def random_tokens(rng: np.random.Generator, n: int, most: int, dtype: type = np.float32) -> TokenVectors:
    items = [rng.normal(size=(rng.integers(1, most + 1), 8)) for _ in range(n)]
    return TokenVectors.of_items([(one / np.linalg.norm(one, axis=1, keepdims=True)).astype(dtype) for one in items])


def spelled_out(query: np.ndarray, candidate: np.ndarray) -> float:
    return sum(max(sum(float(a) * float(b) for a, b in zip(q, c, strict=True)) for c in candidate) for q in query)


def test_closed_form() -> None:
    queries = tokens_of([[1, 0], [0, 1]])
    candidates = tokens_of(
        [[1, 0]],  # finds one of the two: 1 + 0
        [[0.6, 0.8]],  # 0.6 + 0.8
        [[-1, 0], [0, 1], [0.6, 0.8]],  # 0.6 + 1
    )
    ranked = rank_tokens(queries, candidates, None, [np.array([0])], depth=3, cut=1)[0]
    assert ranked.positions.tolist() == [2, 1, 0]
    assert ranked.scores.tolist() == pytest.approx([1.6, 1.4, 1.0], abs=1e-7)
    assert ranked.first_relevant == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block_bytes", [64 << 20, 400])
@pytest.mark.parametrize("duplicates", [False, True])
def test_corpus_and_pools_equal_a_double_loop(
    dtype: type, block_bytes: int, duplicates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 bytes: blocks of two or three items, products of a single query vector at a time."""
    monkeypatch.setattr(max_sim, "BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(7)
    queries, candidates = random_tokens(rng, 7, 9, dtype), random_tokens(rng, 60, 6, dtype)
    if duplicates:
        candidates = TokenVectors.of_items([candidates[i] for i in rng.integers(0, 12, 60)])
    relevant = [rng.choice(60, 2, replace=False) for _ in range(7)]
    pools = [rng.integers(0, 60, rng.integers(1, 50)) for _ in range(7)]  # with repeats, some without the answer
    pools[3] = pools[2][::-1].copy()  # the same candidates in another order: one pass for both
    scores = np.array([[spelled_out(queries[i], candidates[j]) for j in range(60)] for i in range(7)])
    scores = scores.round(9)  # equal items are summed in one order there, in another order here
    for lists in (None, pools):
        ranked = rank_tokens(queries, candidates, lists, relevant, depth=10, cut=5)
        for i, one in enumerate(ranked):
            listed = np.arange(60) if lists is None else lists[i]
            places = np.lexsort((np.arange(len(listed)), -scores[i][listed]))
            assert one.positions.tolist() == listed[places][:10].tolist()
            assert one.scores == pytest.approx(scores[i][listed[places]][:10], abs=1e-8)
            found = np.flatnonzero(np.isin(listed[places], relevant[i]))
            assert one.first_relevant == (found[0] + 1 if len(found) else len(listed) + 1)
            top = scores[i][listed[places]][:6]
            other = np.diff(listed[places][:6]) != 0
            assert one.tied_decisions == np.count_nonzero((np.diff(top) == 0) & other)
            for place, group in enumerate(one.tie_groups):
                assert sorted(group.tolist()) == sorted(listed[scores[i][listed] == top[place]].tolist())


def test_equal_items_tie_wherever_they_stand() -> None:
    rng = np.random.default_rng(1)
    one = random_tokens(rng, 1, 700)[0]
    candidates = TokenVectors.of_items([*random_tokens(rng, 500, 30), one, *random_tokens(rng, 333, 30), one, one])
    query = TokenVectors.of_items([one[:20]])
    ranked = rank_tokens(query, candidates, None, [np.array([834])], depth=10, cut=5)[0]
    assert ranked.positions.tolist()[:3] == [500, 834, 835]
    assert ranked.scores[0] == ranked.scores[1] == ranked.scores[2]
    assert ranked.tied_decisions == 2
    assert ranked.tie_groups[0].tolist() == [500, 834, 835]


def test_float32_scores_are_within_the_margin() -> None:
    """The margin grows with the query: a query of 700 vectors scores up to 700."""
    rng = np.random.default_rng(2)
    queries, candidates = random_tokens(rng, 3, 700), random_tokens(rng, 40, 700)
    proposed = max_sim.max_sim(queries, range(3), candidates, np.arange(40))
    for i in range(3):
        exact = [exact_max_sim(queries[i], candidates[j]) for j in range(40)]
        assert np.abs(proposed[i] - exact).max() < FLOAT32_MARGIN * len(queries[i])


RANK_STORED = """
    import sys, threading, time
    from pathlib import Path
    import numpy as np
    import pyarrow.parquet
    from mmeb_harness.ranking.max_sim import rank_tokens
    from mmeb_harness.store.vectors import VectorStore

    def held() -> int:
        return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("RssAnon"))

    def watch() -> None:
        while True:
            seen.append(held())
            time.sleep(0.002)

    seen, count = [held()], int(sys.argv[2])
    threading.Thread(target=watch, daemon=True).start()
    candidates = VectorStore(Path(sys.argv[1]), "max_sim").get([str(i) for i in range(count)]).vectors
    queries = [candidates[i][:20].copy() for i in (3, 777)]
    ranked = rank_tokens(queries, candidates, None, [np.array([3]), np.array([777])], depth=100, cut=1)
    print(*(int(one.positions[0]) for one in ranked), max(seen) - seen[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_corpus_larger_than_the_memory_it_takes_is_ranked(tmp_path: Path) -> None:
    """400 MB on disk, 800 MB as float32. Pages of mapped files don't count: the system takes them back."""
    write_corpus(tmp_path, items=1600)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 400e6
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RANK_STORED), str(tmp_path), "1600"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, megabytes = map(int, done.stdout.split())
    assert (first, second) == (3, 777)
    assert megabytes < 200


def write_corpus(folder: Path, items: int) -> None:
    """1,000 vectors of 128 float16 an item."""
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(3000, 128)).astype(np.float32)
    pool = (pool / np.linalg.norm(pool, axis=1, keepdims=True)).astype(np.float16)
    store = VectorStore(folder, "max_sim")
    for start in range(0, items, 100):
        made = [np.roll(pool[rng.permutation(3000)[:1000]], i, axis=1) for i in range(start, start + 100)]
        zeros = np.zeros(100)
        encoded = Encoded(TokenVectors.of_items(made), (Trace(),) * 100, zeros, zeros)
        store.add([str(i) for i in range(start, start + 100)], encoded)
    store.flush()
