from __future__ import annotations

import pytest
import torch

from dagobert.dropout import Dropout, kept_scale


def test_a_mask_depends_on_its_place_alone() -> None:
    whole = Dropout(7, 3).mask(2, 100, 48, 0.25)
    assert torch.equal(whole, Dropout(7, 3).mask(2, 100, 48, 0.25))
    # the micro-batch that begins at token 40 has the same rows as tokens 40 to 99 of the whole step
    assert torch.equal(whole[40:], Dropout(7, 3, first_token=40).mask(2, 60, 48, 0.25))
    assert torch.equal(whole[40:], Dropout(7, 3, first_token=1, first_sequence=40).mask(2, 60, 48, 0.25, tokens=False))
    for other in (
        Dropout(8, 3).mask(2, 100, 48, 0.25),
        Dropout(7, 4).mask(2, 100, 48, 0.25),
        Dropout(7, 3).mask(1, 100, 48, 0.25),
    ):
        assert not torch.equal(whole, other)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [384, 30])
def test_it_drops_the_share_it_was_asked_for_and_keeps_the_mean(p: float, width: int) -> None:
    mask = Dropout(1, 1).mask(0, 2000, width, p).float()
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(float(mask.mean()) - (1 - p)) < 0.01
    assert kept_scale(p) == pytest.approx(1 / (1 - p), rel=1e-3)
    dropped = Dropout(1, 1)(torch.ones(2000, width), 0, p)
    assert abs(float(dropped.mean()) - 1) < 0.02


def test_rows_and_columns_are_independent() -> None:
    mask = Dropout(1, 1).mask(0, 4000, 64, 0.5).float() - 0.5
    by_column = (mask.t() @ mask / 4000).fill_diagonal_(0)
    assert by_column.abs().max() < 0.04  # 0.25 times the correlation; standard deviation 0.25 / sqrt(4000) = 0.004
    assert abs(float((mask[1:] * mask[:-1]).mean())) < 0.005
