"""Rewards at their corners, advantages, the gate's gradient, the clipped loss, the divergence: in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from mmemb_r1_model.disk.config import named_config, read_yaml
from mmemb_r1_model.training.policy import (
    Advantages,
    RewardConfig,
    embedding_reward,
    gate_loss,
    group_advantages,
    is_constant,
    k3_divergence,
    policy_loss,
    ranking_score,
    rewards,
)
from mmemb_r1_model.training.stage2 import AdaptConfig

CONFIG = RewardConfig(fmt=1.0, emb=0.0, ada=1.0, length_cost=0.2)


def reward_of(delta: float, length: float = 0.0, well_formed: float = 1.0) -> tuple[float, float]:
    """(reasoned, direct) of a group of two equal rollouts whose score is `delta` above the direct path's."""
    given = rewards(
        torch.tensor([[0.0, delta, delta]]), torch.zeros(1, 3),
        torch.full((1, 2), well_formed), torch.full((1, 2), length), 2.0, CONFIG,
    )  # fmt: skip
    return float(given.reasoned_GK[0, 0]), float(given.direct_G[0])


@pytest.mark.parametrize(
    ("delta", "length", "well_formed", "reasoned", "direct"),
    [
        (0, 0, 1, 1, 1),
        (2, 0, 1, 2, 0),  # a whole sigma
        (9, 0, 1, 2, 0),  # no more than that
        (-9, 0, 1, 0, 2),
        (1, 0, 1, 1.5, 0.5),
        (2, 1, 1, 1.8, 0),  # the longest rationale costs c
        (2, 0.5, 1, 1.9, 0),
        (2, 0, 0, 1, 0),  # ill-formed
    ],
)
def test_rewards_at_their_corners(
    delta: float, length: float, well_formed: float, reasoned: float, direct: float
) -> None:
    assert reward_of(delta, length, well_formed) == pytest.approx((reasoned, direct))


def test_a_score_is_a_log_probability_among_the_negatives() -> None:
    config = RewardConfig(ranking_temperature=0.5)
    negatives, nobody = torch.full((3,), 0.3), torch.zeros(3, dtype=torch.bool)
    assert float(ranking_score(torch.tensor(0.3), negatives, nobody, config)) == pytest.approx(-math.log(4))
    two_left = torch.tensor([True, False, False])
    assert float(ranking_score(torch.tensor(0.3), negatives, two_left, config)) == pytest.approx(-math.log(3))
    assert float(ranking_score(torch.tensor(1.0), negatives - 9, nobody, config)) == pytest.approx(0, abs=1e-6)
    worst = ranking_score(torch.tensor(-1.0), torch.ones(3), nobody, RewardConfig(ranking_temperature=0.01))
    assert float(worst) == -8  # cut off


def test_the_embedding_reward_needs_the_first_place() -> None:
    negatives, nobody = torch.tensor([0.2, 0.4]), torch.zeros(2, dtype=torch.bool)
    config = RewardConfig(negative_temperature=1e6)  # all negatives weigh the same
    assert float(embedding_reward(torch.tensor(0.9), negatives, nobody, config)) == pytest.approx(0.6, abs=1e-5)
    assert float(embedding_reward(torch.tensor(0.3), negatives, nobody, config)) == 0
    assert float(embedding_reward(torch.tensor(0.4), negatives, nobody, config)) == 0  # a tie
    only_first = torch.tensor([False, True])
    assert float(embedding_reward(torch.tensor(0.3), negatives, only_first, config)) == pytest.approx(0.1, abs=1e-5)
    sharp = RewardConfig(negative_temperature=1e-4)  # the hardest negative alone
    assert float(embedding_reward(torch.tensor(0.9), negatives, nobody, sharp)) == pytest.approx(0.5, abs=1e-5)


def test_a_constant_group_has_no_advantage_and_is_counted() -> None:
    given = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    assert group_advantages(given).tolist() == [[0, 0, 0], [-1, 0, 1]]
    divided = group_advantages(given, "divided")
    assert divided[0].tolist() == [0, 0, 0]
    assert divided[1].tolist() == pytest.approx([-1.22459, 0, 1.22459], abs=1e-3)
    assert is_constant(given).tolist() == [True, False]


def advantages_of(deltas: list[float], tokens: list[int], rule: Advantages = "centred") -> list[float]:
    """Of a group whose samples gain `deltas` (in sigma) and have so many tokens of at most 2,048."""
    score = torch.tensor([[0.0, *deltas]])
    length = torch.tensor([tokens]) / 2048
    given = rewards(score, torch.zeros_like(score), torch.ones_like(length), length, 1.0, RewardConfig(length_cost=0.1))
    return group_advantages(given.reasoned_GK, rule)[0].tolist()


def test_length_counts_at_its_cost_and_not_as_much_as_truth() -> None:
    tokens = [110, 120, 130]
    cost = 0.1 * 10 / 2048
    assert advantages_of([1, 1, 1], tokens) == pytest.approx([cost, 0, -cost], abs=1e-6)
    right_and_wrong = advantages_of([1, 1, -1], tokens)
    assert right_and_wrong == pytest.approx([2 / 3 + cost, 2 / 3, -4 / 3 - cost], abs=1e-6)
    # What dividing makes of the same groups: ten tokens weigh as much as being right.
    assert advantages_of([1, 1, 1], tokens, "divided") == pytest.approx([0.98, 0, -0.98], abs=0.01)
    assert advantages_of([1, 1, -1], tokens, "divided") == pytest.approx([0.71, 0.71, -1.41], abs=0.01)


def test_advantages_are_divided_where_a_study_asks_for_it_alone() -> None:
    assert AdaptConfig().advantages == "centred"
    for name in ("mini", "miniworld", "mixed", "mmemb_r1_2b", "mmemb_r1_4b"):
        assert read_yaml(named_config(name))["adapt"].get("advantages", "centred") == "centred"


#: Of three prompts: reasoned at length, directly, briefly.
GIVEN = torch.tensor([[1.7, 0.1, 1.5], [0.2, 1.4, 0.9], [1.0, 1.0, 1.0]])
LOGITS = torch.tensor([[0.3, 0.0, -2.0], [-1.0, 0.5, 0.2], [2.0, 0.0, 1.0]])


def test_a_binary_gates_gradient_is_that_of_the_expected_reward() -> None:
    reasoned, direct = GIVEN[:, 0], GIVEN[:, 1]
    logits = LOGITS[:, :2].clone().requires_grad_()
    loss = gate_loss(logits, GIVEN[:, :2])
    loss.backward()
    assert logits.grad is not None
    logit = LOGITS[:, 0] - LOGITS[:, 1]
    p = torch.sigmoid(logit)
    torch.testing.assert_close(-logits.grad[:, 0] * 3, p * (1 - p) * (reasoned - direct))
    torch.testing.assert_close(logits.grad[:, 1], -logits.grad[:, 0])
    # To the last digit what it is without further actions, as results have it.
    for entropy in (0.0, 0.3):
        alone = logit.clone().requires_grad_()
        chance = torch.sigmoid(alone)
        worth = torch.nn.functional.softplus(alone) - chance * alone
        expected = -(chance * (reasoned - direct) + entropy * worth).mean()
        expected.backward()
        logits.grad = None
        loss = gate_loss(logits, GIVEN[:, :2], entropy)
        loss.backward()
        assert torch.equal(loss, expected)
        assert torch.equal(logits.grad[:, 0], alone.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("entropy", [0.0, 0.3])
def test_a_graded_gates_loss_is_the_soft_maxs(entropy: float) -> None:
    logits = LOGITS.double().requires_grad_()
    gate_loss(logits, GIVEN.double(), entropy).backward()
    p = torch.softmax(LOGITS.double(), dim=1)
    worth = GIVEN.double() - entropy * torch.log(p)  # a prompt's own entropy is its mean surprise
    gradient = p * (worth - (p * worth).sum(dim=1, keepdim=True))
    torch.testing.assert_close(-3 * logits.grad, gradient)  # type: ignore[operator]
    moved = LOGITS.double().clone()
    moved[1, 2] += 1e-6
    slope = (gate_loss(moved, GIVEN.double(), entropy) - gate_loss(LOGITS.double(), GIVEN.double(), entropy)) / 1e-6
    assert float(slope) == pytest.approx(-float(gradient[1, 2]) / 3, abs=1e-5)


def test_with_entropy_the_best_logits_are_rewards_over_its_worth() -> None:
    for actions in (2, 3):
        given = GIVEN[:, :actions].double()
        logits = (given / 0.3 + 5).requires_grad_()
        gate_loss(logits, given, entropy=0.3).backward()
        torch.testing.assert_close(logits.grad, torch.zeros_like(given), atol=1e-8, rtol=0)
        undecided = torch.zeros(3, actions)  # it doesn't matter there: the entropy is greatest
        torch.testing.assert_close(
            gate_loss(undecided, given.float(), 0.3), gate_loss(undecided, given.float()) - 0.3 * math.log(actions)
        )


def test_a_token_costs_the_same_between_any_two_actions() -> None:
    """Long gains 0.9 of sigma at 20 tokens of 40, short 0.4 at 8; the two sampled ones are no business of the gate."""
    score = torch.tensor([[0.0, 0.9, 3.0, -3.0, 0.4]])
    length = torch.tensor([[20.0, 9.0, 9.0, 8.0]]) / 40
    config = RewardConfig(length_cost=0.5)
    given = rewards(score, torch.zeros_like(score), torch.ones_like(length), length, 1.0, config, graded=True)
    assert given.reasoned_GK.shape == (1, 3)
    assert float(given.delta_G) == pytest.approx(0.9)
    long, direct, short = given.actions[0].tolist()
    assert long - direct == pytest.approx(2 * 0.9 - 0.5 * 20 / 40)
    assert short - direct == pytest.approx(2 * 0.4 - 0.5 * 8 / 40)
    assert long - short == pytest.approx(2 * 0.5 - 0.5 * 12 / 40)
    binary = rewards(score[:, :-1], torch.zeros(1, 4), torch.ones(1, 3), length[:, :-1], 1.0, config)
    assert torch.equal(binary.actions, given.actions[:, :2])


def test_the_ratio_is_clipped_on_the_side_that_would_go_too_far() -> None:
    old = torch.zeros(4)
    new = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5]))
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = policy_loss(new, old, advantages, 0.2, 0.28)
    assert loss.tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8])
    at_start = torch.zeros(2, requires_grad=True)
    policy_loss(at_start, torch.zeros(2), torch.tensor([2.0, -3.0]), 0.2, 0.28).sum().backward()
    assert at_start.grad is not None
    assert at_start.grad.tolist() == [-2, 3]


def test_the_divergence_is_zero_at_home_and_positive_elsewhere() -> None:
    here = torch.log(torch.tensor([0.5, 0.2, 0.9]))
    assert k3_divergence(here, here).abs().max() == 0
    assert (k3_divergence(here, here + torch.tensor([0.5, -0.5, 0.01])) > 0).all()
    # Its mean over samples of the policy is the KL divergence.
    policy, reference = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    mean = (policy * k3_divergence(policy.log(), reference.log())).sum()
    assert float(mean) == pytest.approx(float((policy * (policy / reference).log()).sum()), abs=1e-6)


def test_the_embedding_reward_is_0_beside_excluded_negatives_alone() -> None:
    everybody = torch.ones(2, dtype=torch.bool)
    assert float(embedding_reward(torch.tensor(0.9), torch.tensor([0.2, 0.4]), everybody, RewardConfig())) == 0
    rewarded = embedding_reward(
        torch.tensor([0.9, 0.9]),
        torch.tensor([[0.2, 0.4], [0.2, 0.2]]),
        torch.tensor([[True, True], [False, False]]),
        RewardConfig(),
    )
    assert rewarded.tolist() == pytest.approx([0.0, 0.7])
