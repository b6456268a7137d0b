from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.batches import Shapes, cut, epoch_steps, longest_first, pack
from dagobert.errors import BatchBudgetError
from dagobert.shards import TokenStore

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=200).map(lambda values: np.array(values, dtype=np.int64))


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_every_sequence_once_an_epoch(lengths: np.ndarray, size: int, seed: int, epoch: int, grouped: bool) -> None:
    steps = epoch_steps(lengths, size, seed, epoch, grouped=grouped)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert all(len(step) <= size for step in steps)
    assert len(steps) == -(-len(lengths) // size)
    assert all((np.diff(lengths[step]) <= 0).all() for step in steps)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(64, 400), st.booleans())
def test_a_token_budget_is_kept(lengths: np.ndarray, budget: int, padded: bool) -> None:
    steps = epoch_steps(lengths, 1, 0, 0, tokens=budget)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert all(lengths[step].sum() <= budget for step in steps)
    order = longest_first(np.arange(len(lengths)), lengths)
    pieces = cut(order, lengths, budget, padded=padded)
    assert np.concatenate(pieces).tolist() == order.tolist()
    cost = [len(p) * lengths[p].max() if padded else lengths[p].sum() for p in pieces]
    assert max(cost) <= budget


def test_the_plan_is_a_function_of_its_arguments() -> None:
    lengths = np.arange(1, 101)
    plans = [epoch_steps(lengths, 8, seed, epoch) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    flat = [np.concatenate(plan).tolist() for plan in plans]
    assert flat[0] == flat[1]
    assert flat[0] != flat[2]
    assert flat[0] != flat[3]


def test_grouping_puts_similar_lengths_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 512, size=1600)

    def padding(grouped: bool) -> int:
        steps = epoch_steps(lengths, 16, 0, 0, grouped=grouped)
        return sum(int(len(s) * lengths[s].max() - lengths[s].sum()) for s in steps)

    assert padding(True) < padding(False) / 10


def test_weights_decide_how_often_a_sequence_is_drawn() -> None:
    weights = np.array([9.0] * 10 + [1.0] * 90)
    drawn = np.concatenate(epoch_steps(np.full(100, 5), 10, 0, 0, weights=weights))
    assert len(drawn) == 100
    assert 30 <= (drawn < 10).sum() <= 70  # expected 50


def test_a_budget_that_holds_no_sequence_is_named() -> None:
    with pytest.raises(BatchBudgetError, match=r"65 tokens does not fit into a batch of 64.*at least 65"):
        cut(np.array([0, 1]), np.array([3, 65]), 64)


def test_a_packed_batch_lays_sequences_end_to_end() -> None:
    # 3 sequences of 3, 5 and 2 tokens: [CLS] rows at 0, 3 and 8; 10 tokens are rounded up to 64
    store = TokenStore.from_arrays(np.arange(1, 11, dtype=np.uint16), [0, 3, 8, 10])
    batch = pack(store, [0, 1, 2])
    assert batch.first_rows.tolist() == [0, 3, 8]
    assert batch.positions[:10].tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1]
    assert batch.input_ids.tolist() == [*range(1, 11), *[0] * 54]
    assert batch.lengths == (3, 5, 2)
    assert batch.token_types is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=120), st.sampled_from([64, 512, 4096, 32768]), st.integers(64, 512))
def test_dummies_fill_up_to_few_shapes(lengths: list[int], budget: int, longest: int) -> None:
    shapes = Shapes.within(budget, longest)
    spans = lengths + shapes.dummies(lengths)
    assert spans[: len(lengths)] == lengths
    assert min(spans) >= 1
    assert max(spans) <= shapes.longest
    assert sum(spans) % shapes.multiple == 0
    assert sum(spans) < sum(lengths) + len(spans) + shapes.multiple
    assert len(spans) % 64 == 0
    assert shapes.multiple >= budget // 8 - 64


def test_steps_of_one_size_have_few_shapes() -> None:
    generator = np.random.default_rng(0)
    shapes = Shapes.within(32768, 512)
    steps = [generator.integers(20, 512, size=64).tolist() for _ in range(100)]
    found = {(sum(s) + sum(d := shapes.dummies(s)), len(s) + len(d)) for s in steps}
    assert len(found) <= 3


def test_a_batch_of_fixed_shape() -> None:
    # 3 sequences of 10 tokens in all; 61 dummies make 64 sequences, and 54 more tokens are too few for them: 128 tokens
    store = TokenStore.from_arrays(np.arange(1, 11, dtype=np.uint16), [0, 3, 8, 10])
    batch = pack(store, [0, 1, 2], shapes=Shapes.within(64, 8))
    assert batch.lengths == (3, 5, 2)
    assert (len(batch.spans), sum(batch.spans), len(batch.input_ids)) == (64, 128, 128)
    assert batch.cu_seqlens.tolist() == np.cumsum([0, *batch.spans]).tolist()
    assert batch.positions.tolist() == [i for n in batch.spans for i in range(n)]
    assert batch.longest == 8
    assert (batch.input_ids[10:] == 0).all()
