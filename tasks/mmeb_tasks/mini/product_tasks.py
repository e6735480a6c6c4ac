"""MCMR of the mini suite: products whose picture shows one condition and whose text says the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mmeb_tasks.mcmr import FOLDER
from mmeb_tasks.mini.questions import difficulties
from mmeb_tasks.mini.thoughts import direction_words, number_words, other_way
from mmeb_tasks.mini.visdoc_tasks import ROW_NAMES
from mmeb_tasks.mini.world import (
    DIRECTIONS,
    NUMBERS,
    Rng,
    Thing,
    draw_scene,
    random_scene,
    random_thing,
    shuffled,
)
from mmeb_tasks.mini.write import QueryLabel, Streams, SuiteWriter

#: Lowest and highest price; sums lead to each of them.
PRICES = (2, 7)


@dataclass(frozen=True, slots=True)
class Product:
    """A thing in a picture, and what a text says beside it."""

    thing: Thing
    price: int
    direction: int
    origin: int

    @property
    def words(self) -> str:
        """All that it fits, in words."""
        moving, price = DIRECTIONS[self.direction], NUMBERS[self.price]
        return f"{self.thing.words} from the {ROW_NAMES[self.origin]} moving {moving} price {price}"


def write_product_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write MCMR: each wanted product among four that miss one condition."""
    rng = streams(name)
    wanted = [_random_product(rng) for _ in range(num_queries)]
    products = shuffled(rng, list(dict.fromkeys(p for target in wanted for p in (target, *_near_misses(rng, target)))))
    ids = {product: f"B{number:05d}" for number, product in enumerate(products)}
    queries: list[dict[str, Any]] = []
    labels = []
    for number, (target, kind) in enumerate(zip(wanted, difficulties(rng, num_queries), strict=True)):
        conditions = (
            f"{target.thing.words} from the {ROW_NAMES[target.origin]}",
            f"moving {direction_words(target.direction, kind)}",
            f"price {number_words(rng, target.price, kind)}",
        )
        queries.append({"qid": str(number), "query": ", ".join(conditions), "pos_ids": [ids[target]]})
        labels.append(QueryLabel(str(number), kind, target.words, target.words))
    writer.lines(f"{FOLDER}/query.jsonl", queries)
    writer.lines(f"{FOLDER}/candidates.jsonl", [_row(ids[p], p, rng, writer) for p in products])
    writer.labels(name, labels)


def _random_product(rng: Rng) -> Product:
    return Product(
        random_thing(rng),
        int(rng.integers(PRICES[0], PRICES[1] + 1)),
        int(rng.integers(len(DIRECTIONS))),
        int(rng.integers(len(ROW_NAMES))),
    )


def _near_misses(rng: Rng, product: Product) -> tuple[Product, ...]:
    """Another picture, another price, the other way, and from elsewhere."""
    thing = Thing((product.thing.colour + int(rng.integers(1, 8))) % 8, product.thing.shape)
    prices = PRICES[1] + 1 - PRICES[0]
    price = PRICES[0] + (product.price - PRICES[0] + int(rng.integers(1, prices))) % prices
    origin = (product.origin + int(rng.integers(1, len(ROW_NAMES)))) % len(ROW_NAMES)
    return (
        replace(product, thing=thing),
        replace(product, price=price),
        replace(product, direction=other_way(product.direction)),
        replace(product, origin=origin),
    )


def _row(product_id: str, product: Product, rng: Rng, writer: SuiteWriter) -> dict[str, Any]:
    """A product's row. Its picture's address ends as addresses of shops do."""
    picture = draw_scene(random_scene(rng, 2, product.thing), rng)
    writer.picture(f"{FOLDER}/images/{product_id}.png", picture)
    return {
        "candidate_id": product_id,
        "title": f"from the {ROW_NAMES[product.origin]}",
        "description": "",
        "features": [f"moving {DIRECTIONS[product.direction]}", "shapes on grey"],
        "price": f"price {NUMBERS[product.price]}",
        "Date First Available": None,
        "images": [{"url": f"pictures/{product_id}.png?size=64"}],
    }
