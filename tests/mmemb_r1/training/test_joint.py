"""Stage 1's loss and gradient: the same in one piece, in chunks and cached."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from mmemb_r1_model.disk.errors import OptionError, UnknownNameError
from mmemb_r1_model.training.batches import Input, Plan, PlanConfig, StepBatch, StepReader, WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from mmemb_r1_model.training.losses import JointWeights, info_nce
from mmemb_r1_model.training.rollouts import LocalSampler, with_own_rationales
from mmemb_r1_model.training.student import Student
from tests.mmemb_r1.small_training import gradient, make_pairs, make_student


def one_batch(folder: Path, student: Student, size: int = 12) -> StepBatch:
    pairs, written = make_pairs(folder, 24)
    sets = [WeightedSet(pairs, 1.0)]
    config = PlanConfig(batch_size=size, distractors=2)
    reader = StepReader(Plan(sets, config, 3, 0), student.reader.prompt, written)
    return reader[1]


def test_first_steps_draw_from_the_named_sets_only(tmp_path: Path) -> None:
    pairs, _ = make_pairs(tmp_path, 24)
    sets = [WeightedSet(dataclasses.replace(pairs, name=name), 1.0) for name in ("skill", "mix", "more")]
    plan = Plan(sets, PlanConfig(batch_size=8, first_steps=20, first_sets=("skill",)), 60, 0)
    drawn = [{chosen for chosen, _ in plan.blocks(step)} for step in range(60)]
    assert set.union(*drawn[:20]) == {0}
    assert set.union(*drawn[20:]) == {0, 1, 2}
    without = Plan(sets, PlanConfig(batch_size=8), 60, 0)
    assert [{chosen for chosen, _ in without.blocks(step)} for step in range(20, 60)] == drawn[20:]
    with pytest.raises(UnknownNameError, match=r"no data set in first_sets named 'skil'. Did you mean 'skill'"):
        Plan(sets, PlanConfig(batch_size=8, first_steps=20, first_sets=("skil",)), 60, 0)
    with pytest.raises(OptionError, match="first_steps needs first_sets"):
        Plan(sets, PlanConfig(batch_size=8, first_steps=20), 60, 0)


def test_two_shares_of_a_data_set_have_no_pair_in_common(tmp_path: Path) -> None:
    pairs, _ = make_pairs(tmp_path, 24)

    def drawn(config: PlanConfig) -> set[int]:
        plan = Plan([WeightedSet(pairs, 1.0)], config, 30, 0)
        return {position for step in range(30) for _, positions in plan.blocks(step) for position in positions}

    seen = drawn(PlanConfig(batch_size=6, pairs_to=0.75))
    unseen = drawn(PlanConfig(batch_size=6, pairs_from=0.75))
    assert (len(seen), len(unseen), len(seen | unseen)) == (18, 6, 24)
    with pytest.raises(OptionError, match="has 6 pairs, fewer than the 8"):
        drawn(PlanConfig(batch_size=8, pairs_from=0.75))
    with pytest.raises(OptionError, match="must be 0 ≤ from < to ≤ 1"):
        drawn(PlanConfig(pairs_from=0.75, pairs_to=0.5))


def test_equal_vectors_cost_log_of_the_batch() -> None:
    vectors = torch.nn.functional.normalize(torch.ones(7, 5), dim=-1)
    nothing = torch.zeros(7, 7, dtype=torch.bool)
    assert float(info_nce(vectors, vectors, 0.02, nothing)) == pytest.approx(math.log(7), abs=1e-6)


@pytest.mark.parametrize("micro_batch", [0, 5, 1])
def test_gradient_caching_and_chunks_give_the_gradient_of_one_piece(
    random_checkpoint: Path, tmp_path: Path, micro_batch: int
) -> None:
    student = make_student(random_checkpoint)
    batch = one_batch(tmp_path, student)
    weights = JointWeights(reasoned=0.7, direct=1.3, generation=2.0, cross=0.5)
    found = []
    for config in (
        ContrastConfig(weights=weights),
        ContrastConfig(weights=weights, micro_batch=micro_batch, gradient_caching=True),
        ContrastConfig(weights=weights, micro_batch=micro_batch),
    ):
        student.module.zero_grad()
        values = joint_backward(student, batch, config, World(), seed=1)
        found.append((values, gradient(student)))
    for values, other in found[1:]:
        assert values == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(other, found[0][1], rtol=1e-3, atol=1e-5)
    assert float(found[0][1].norm()) > 0.1


def test_the_contrast_sees_what_the_student_wrote_and_the_next_token_loss_what_it_was_given(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    student = make_student(random_checkpoint)
    batch = one_batch(tmp_path, student)
    config = ContrastConfig(temperature=0.05)

    def terms(written: str | None, given: str | None = None) -> dict[str, float]:
        def of(inputs: tuple[Input, ...]) -> tuple[Input, ...]:
            own = None if written is None else tuple(student.completion(written))
            return tuple(
                one
                if one.rationale is None
                else dataclasses.replace(one, written=own, rationale=given or one.rationale)
                for one in inputs
            )

        changed = dataclasses.replace(batch, queries=of(batch.queries), positives=of(batch.positives))
        student.module.zero_grad()
        return joint_backward(student, changed, config, World(), seed=1)

    given, own, as_given = terms(None), terms("blue blue"), terms(None, "blue blue")
    assert own["generation"] == pytest.approx(given["generation"], rel=1e-5)
    assert own["direct"] == pytest.approx(given["direct"], rel=1e-5)
    for name in ("reasoned", "cross"):
        assert own[name] == pytest.approx(as_given[name], rel=1e-5)
        assert own[name] != pytest.approx(given[name], rel=1e-3)


def test_own_rationales_are_the_greedy_ones_from_a_share_of_the_steps_on(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    student = make_student(random_checkpoint)
    batch = one_batch(tmp_path, student)
    sampler, longest = LocalSampler(student), student.settings.max_new_tokens
    sampler.refresh(0)
    own = with_own_rationales(batch, sampler, longest, at_once=5)
    inputs = [given for given in batch.queries if given.rationale is not None]
    greedy = [group[0].ids for group in sampler.sample(inputs, 3, longest, seed=4)]
    assert [given.written for given in own.queries if given.rationale is not None] == greedy
    assert all(given.written is None for given in own.queries if given.rationale is None)
    assert own.extras == batch.extras
    assert [ContrastConfig(own_from=0.75).reads_own(step, 8) for step in range(8)] == [False] * 6 + [True] * 2
    assert not ContrastConfig().reads_own(7, 8)
