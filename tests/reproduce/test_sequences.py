"""A few random steps; `python -m tests.reproduce.sequences` takes 500."""

from __future__ import annotations

from pathlib import Path

from dagobert.fsck import fsck
from tests.reproduce.sequences import Player


def test_a_few_random_steps(toy_root: Path) -> None:
    player = Player(toy_root, seed=5)
    player.play(6)
    assert player.clean > 0
    assert fsck(player.repository).damages == ()
