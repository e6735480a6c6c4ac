"""baselines/README.md is what the cards say."""

from __future__ import annotations

import csv

from mmeb_baselines import readme


def test_the_readme_is_not_stale() -> None:
    assert readme.README.read_text(encoding="utf-8") == readme.text(), "run python -m mmeb_baselines.readme"


def test_every_family_has_cards_of_its_own_models() -> None:
    cards = [card for family in readme.FAMILIES for card in family.CARDS]
    assert len({(card.model, card.hub_id) for card in cards}) == len(cards)
    assert all(card.revision is None or len(card.revision) == 40 for card in cards)


def test_a_mean_without_a_published_one_is_over_all_tasks() -> None:
    with readme.PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], row["edition"]) == ("LamRA-Ret", "v2.0.0")]
    assert len(rows) == 78
    score, edition = readme.published_scores(readme.PUBLISHED)["LamRA-Ret"]
    assert edition == "v2.0.0"
    assert abs(score - 100 * sum(float(row["value"]) for row in rows) / 78) < 1e-9
