from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagobert.dropout import Dropout, Through, kept_scale


def on_cpu(dropout: Dropout, site: int, rows: int, width: int, p: float, tokens: bool = True) -> Tensor:
    return dropout.mask(site, rows, width, p, tokens=tokens)


def on_a_device(dropout: Dropout, site: int, rows: int, width: int, p: float, tokens: bool = True) -> Tensor:
    """What a GPU computes, computed here."""
    return dropout.device_mask(site, rows, width, p, torch.device("cpu"), tokens=tokens)


both = pytest.mark.parametrize("mask_of", [on_cpu, on_a_device])


@both
def test_a_mask_depends_on_its_place_alone(mask_of: Callable[..., Tensor]) -> None:
    whole = mask_of(Dropout(7, 3), 2, 100, 48, 0.25)
    assert torch.equal(whole, mask_of(Dropout(7, 3), 2, 100, 48, 0.25))
    # the micro-batch that begins at token 40 has the same rows as tokens 40 to 99 of the whole step
    assert torch.equal(whole[40:], mask_of(Dropout(7, 3, first_token=40), 2, 60, 48, 0.25))
    assert torch.equal(whole[40:], mask_of(Dropout(7, 3, first_token=1, first_sequence=40), 2, 60, 48, 0.25, tokens=False))
    for dropout, site in ((Dropout(8, 3), 2), (Dropout(7, 4), 2), (Dropout(7, 3), 1)):
        assert not torch.equal(whole, mask_of(dropout, site, 100, 48, 0.25))


@both
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [384, 30])
def test_it_drops_the_share_it_was_asked_for_and_keeps_the_mean(mask_of: Callable[..., Tensor], p: float, width: int) -> None:
    mask = mask_of(Dropout(1, 1), 0, 2000, width, p).float()
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(float(mask.mean()) - (1 - p)) < 0.01
    assert kept_scale(p) == pytest.approx(1 / (1 - p), rel=1e-3)
    dropped = Dropout(1, 1)(torch.ones(2000, width), 0, p)
    assert abs(float(dropped.mean()) - 1) < 0.02


@both
def test_rows_and_columns_are_independent(mask_of: Callable[..., Tensor]) -> None:
    mask = mask_of(Dropout(1, 1), 0, 4000, 64, 0.5).float() - 0.5
    by_column = (mask.t() @ mask / 4000).fill_diagonal_(0)
    assert by_column.abs().max() < 0.04  # 0.25 times the correlation; standard deviation 0.25 / sqrt(4000) = 0.004
    assert abs(float((mask[1:] * mask[:-1]).mean())) < 0.005


def test_sites_steps_and_rectangles_of_a_hashed_mask_are_independent() -> None:
    """A row and a column are hashed by themselves and added: no four corners may know of each other."""
    masks = [on_a_device(Dropout(1, step), site, 4000, 64, 0.5).float() - 0.5 for step in (1, 2) for site in (0, 1)]
    for one, other in itertools.combinations(masks, 2):
        assert abs(float((one * other).mean())) < 0.002  # standard deviation 0.25 / sqrt(256,000) = 0.0005
    corners = masks[0][:-1, :-4] * masks[0][1:, :-4] * masks[0][:-1, 4:] * masks[0][1:, 4:]
    assert abs(float(corners.mean())) < 0.0006  # 0.0625 / sqrt(240,000) = 0.00013


@pytest.mark.parametrize("shape", [(6, 32), (6, 9, 32), (6, 2, 9, 9), (12, 9, 9)])
def test_a_sequence_is_dropped_alike_whatever_it_runs_with_and_is_padded_to(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    whole = Dropout(7, 3, first_sequence=10).by_sequence(x, 5, 0.3, sequences=6)
    assert 0 < float((whole == 0).float().mean()) < 0.5
    each = shape[0] // 6
    last = Dropout(7, 3, first_sequence=14).by_sequence(x[: 2 * each], 5, 0.3, sequences=2)
    assert torch.equal(whole[4 * each :], last)
    assert torch.equal(last, Dropout(7, 3, first_sequence=12).by_sequence(x[: 2 * each], 5, 0.3, sequences=2, before=2))
    shorter = tuple(slice(0, 7) for _ in shape[1:])
    assert torch.equal(whole[:, *shorter], Dropout(7, 3, first_sequence=10).by_sequence(x[:, *shorter], 5, 0.3, sequences=6))


def test_torch_s_own_dropouts_are_answered_for() -> None:
    """Without modules being replaced: hidden states and the weights inside the attention kernel."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, 9, 8)
    drop, attend = nn.Dropout(0.3), F.scaled_dot_product_attention
    mask = torch.ones(4, 1, 1, 9, dtype=torch.bool)
    mask[:, :, :, 7:] = False
    with Through(Dropout(1, 2), 4) as through:
        one = drop(query)
        again = through.again()
        two, three = drop(query), attend(query, key, value, attn_mask=mask, dropout_p=0.4)
        assert torch.allclose(
            attend(query, key, value, attn_mask=mask), attend(query, key, value, attn_mask=mask, dropout_p=0.0)
        )
        assert torch.equal(drop.eval()(query), query)
    drop.train()
    with again:
        assert torch.equal(drop(query), two)
        assert torch.equal(attend(query, key, value, attn_mask=mask, dropout_p=0.4), three)
    assert not torch.equal(one, two)
    with Through(Dropout(1, 2, first_sequence=1), 3):
        assert torch.equal(drop(query[1:]), one[1:])
    assert not torch.equal(three, attend(query, key, value, attn_mask=mask))
    with Through(Dropout(1, 2), 4):
        nothing = attend(query, key, torch.ones(4, 2, 9, 8), dropout_p=0.4)
    assert abs(float(nothing.mean()) - 1) < 0.1  # kept weights are scaled up
