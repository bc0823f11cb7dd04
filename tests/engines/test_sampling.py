"""Choosing the next id: planted distributions, a slow reference, and draws that a seed and a step fix."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis360.engines import Sampling
from analysis360.engines.sampling import candidates, choose, draw, uniforms
from analysis360.errors import SelectionError

PLANTED = [0.5, 0.25, 0.125, 0.0625, 0.0625]


def logits(p: list[float]) -> torch.Tensor:
    return torch.tensor([p], dtype=torch.float32).log()


def probabilities(rows: torch.Tensor, samplings: list[Sampling]) -> torch.Tensor:
    """[rows, vocabulary] what each id is drawn with, up to a factor."""
    ids, p = candidates(rows, samplings)
    assert (ids.diff(dim=-1) > 0).all()
    return torch.zeros(rows.shape, dtype=torch.float64).scatter(-1, ids, p)


def support(sampling: Sampling, p: list[float] = PLANTED) -> list[int]:
    """The ids that may be drawn."""
    return torch.nonzero(probabilities(logits(p), [sampling])[0])[:, 0].tolist()


def by_hand(values: list[float], sampling: Sampling) -> list[float]:
    """One row, in plain Python: temperature, top-k, top-p, each after the other."""
    weights = [math.exp((value - max(values)) / sampling.temperature) for value in values]
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))[: sampling.top_k]
    total = sum(weights[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if kept and mass >= sampling.top_p:
            break
        assume(abs(mass - sampling.top_p) > 1e-9)
        kept.append(i)
        mass += weights[i] / total
    return [weights[i] / sum(weights[j] for j in kept) if i in kept else 0.0 for i in range(len(values))]


@pytest.mark.parametrize("step", [0, 5])
@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"temperature": 1.0}, PLANTED),
        ({"temperature": 1.0, "top_k": 2}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.8}, [4 / 7, 2 / 7, 1 / 7, 0, 0]),
        ({"temperature": 0.5}, [p * p / 0.3359375 for p in PLANTED]),
    ],
)
def test_ids_are_drawn_as_often_as_planted(
    sampling: dict[str, float], expected: list[float], step: int
) -> None:
    n = 4000
    samplings = [Sampling(**sampling, seed=seed) for seed in range(n)]
    u = np.array([uniforms(one.seed, step + 1)[step] for one in samplings])
    drawn = choose(logits(PLANTED).expand(n, -1), samplings, u)
    counts = np.bincount(drawn.numpy(), minlength=5)
    spread = np.sqrt(n * np.array(expected) * (1 - np.array(expected)))
    assert (np.abs(counts - n * np.array(expected)) <= 4 * spread).all()


def test_top_k_and_top_p_keep_exactly_the_right_ids() -> None:
    assert support(Sampling(1.0)) == [0, 1, 2, 3, 4]
    assert [support(Sampling(1.0, top_k=k)) for k in (1, 3, 4, 9)] == [
        [0],
        [0, 1, 2],
        [0, 1, 2, 3],  # of two that tie, the lower
        [0, 1, 2, 3, 4],
    ]
    assert [support(Sampling(1.0, top_p=p)) for p in (0.01, 0.49, 0.51, 0.76, 0.9, 0.95)] == [
        [0],
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
    ]
    assert support(Sampling(1.0, top_p=0.5), [0.25] * 4) == [0, 1]  # just enough is enough
    # top-p is of what top-k left: 2/3 and 1/3
    assert support(Sampling(1.0, top_k=2, top_p=0.6)) == [0]
    assert support(Sampling(1.0, top_k=2, top_p=0.7)) == [0, 1]
    assert support(Sampling(1.0, top_k=2), [0.1, 0.2, 0.3, 0.4]) == [2, 3]


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12),
    st.floats(0.1, 3),
    st.none() | st.integers(1, 14),
    st.just(1.0) | st.floats(0.05, 0.99),
)
def test_probabilities_agree_with_plain_python(
    values: list[float], temperature: float, top_k: int | None, top_p: float
) -> None:
    sampling = Sampling(temperature, top_p, top_k)
    expected = by_hand(values, sampling)
    found = probabilities(torch.tensor([values]), [sampling])[0]
    np.testing.assert_allclose(found / found.sum(), expected, atol=1e-9)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=4, max_size=9), st.integers(1, 3))
def test_of_equal_logits_the_lowest_ids_are_candidates(values: list[float], k: int) -> None:
    rows = torch.tensor([values, values[::-1]])
    ids, _ = candidates(rows, [Sampling(1.0, top_k=k)] * 2)
    for row, found in zip(rows.tolist(), ids.tolist(), strict=True):
        assert found == sorted(sorted(range(len(row)), key=lambda i: (-row[i], i))[:k])


@given(
    st.lists(st.just(0.0) | st.floats(1e-6, 1), min_size=2, max_size=9).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_is_the_first_id_at_which_the_sum_passes_the_number(p: list[float], u: float) -> None:
    passed = np.flatnonzero(np.cumsum(p) > u * np.cumsum(p)[-1])
    expected = passed[0] if len(passed) else np.flatnonzero(p)[-1]
    assert draw(torch.tensor([p], dtype=torch.float64), torch.tensor([u], dtype=torch.float64)) == expected


def test_the_last_number_below_one_draws_an_id_that_can_be() -> None:
    p = torch.tensor([[0.3, 0.1, 0.3, 0.3, 0.0]], dtype=torch.float64)
    assert draw(p, torch.tensor([1 - 2.0**-53], dtype=torch.float64)) == 3
    assert draw(p.roll(1), torch.zeros(1, dtype=torch.float64)) == 1


def test_numbers_depend_on_seed_and_step_alone() -> None:
    np.testing.assert_array_equal(uniforms(7, 3), uniforms(7, 500)[:3])
    many = np.array([uniforms(seed, 2) for seed in range(2000)])
    assert len(np.unique(many)) == many.size
    assert abs(many.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(many.T)[0, 1]) < 0.08
    assert 0 <= uniforms(2**64 - 1, 1)[0] < 1


def test_each_row_of_a_batch_is_chosen_in_its_own_way() -> None:
    rows = torch.randn((4, 50), generator=torch.Generator().manual_seed(0))
    ways = [Sampling(), Sampling(0.7, 0.9, 5, seed=1), Sampling(1.5, seed=2), Sampling()]
    u = np.array([0.1, 0.4, 0.9, 0.3])
    together = choose(rows, ways, u).tolist()
    assert together == [int(choose(rows[i : i + 1], [ways[i]], u[i : i + 1])[0]) for i in range(4)]
    assert [together[0], together[3]] == rows[[0, 3]].argmax(dim=-1).tolist()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"temperature": math.nan}, "temperature"),
    ],
)
def test_what_cannot_be_sampled_is_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(SelectionError, match=f"^{named}.*expected"):
        Sampling(**wrong)
