"""A corpus shared out in blocks gives what one search of it gives; the blocks here are searched by FAISS on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from mmeb_harness.ranking.nearest import Found, nearest, nearest_by_blocks


def unit(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def on_cpu(queries: np.ndarray, candidates: np.ndarray, k: int) -> Found:
    import faiss

    scores, places = faiss.knn(queries, candidates, k, faiss.METRIC_INNER_PRODUCT)
    return scores, places


@pytest.mark.parametrize("size", [5, 40, 1001])
@pytest.mark.parametrize("most_rows", [3, 100, 5000])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_blocks_over_devices_are_one_search(size: int, most_rows: int, devices: int) -> None:
    queries, candidates = unit(30, 24, seed=0), unit(size, 24, seed=1)
    k = min(size, 17)
    scores, places = nearest_by_blocks(queries, candidates, k, [on_cpu] * devices, most_rows)
    expected, expected_places = nearest(queries, candidates, k)
    assert places.tolist() == expected_places.tolist()
    assert scores == pytest.approx(expected, abs=1e-6)


def test_each_device_gets_its_share_in_blocks_that_fit() -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}

    def device(number: int) -> object:
        def search(queries: np.ndarray, candidates: np.ndarray, k: int) -> Found:
            seen[number].append(len(candidates))
            return on_cpu(queries, candidates, k)

        return search

    nearest_by_blocks(unit(3, 8, 0), unit(90, 8, 1), 4, [device(0), device(1)], 20)  # type: ignore[list-item]
    assert seen == {0: [20, 20, 10], 1: [20, 20]}
