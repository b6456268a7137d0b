"""Shared by all tests: no network, and a BERT small enough to train in a second."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).resolve().parents[1]

TINY_WORDS = (
    "the a an and of to in it is was this that film movie good bad great awful love hate boring fun plot acting "
    "not very really one two three happy sad wonderful terrible best worst"
).split()


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))


def make_tiny_bert(path: Path) -> Path:
    """A random BERT checkpoint with its tokenizer: 2 layers, hidden 32, 2 heads, 64 positions, a few words and all letters."""
    import string

    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    vocabulary = [*special, *letters, *(f"##{c}" for c in string.ascii_lowercase + string.digits), *TINY_WORDS[2:]]
    vocabulary = list(dict.fromkeys(vocabulary))
    (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(
        vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=True, model_max_length=64
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(path)
    return path


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that mounts a file system of so many KiB at `tmp_path/disk`; skips where that is not allowed."""
    path = tmp_path / "disk"
    mounted = False

    def mount(kibibytes: int) -> Path:
        nonlocal mounted
        path.mkdir()
        try:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(path)], capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no mount")
        mounted = done.returncode == 0
        if not mounted:
            pytest.skip("may not mount a file system")
        return path

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
