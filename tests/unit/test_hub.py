"""Datasets of the hub: everything but the hub itself, which a directory on this machine stands in for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dagobert import hub
from dagobert.errors import SourceError
from dagobert.sources import fetch

datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("hf://datasets/stanfordnlp/imdb", ("stanfordnlp/imdb", None, None, None)),
        ("hf://datasets/imdb", ("imdb", None, None, None)),
        ("hf://datasets/nyu-mll/glue/sst2", ("nyu-mll/glue", None, "sst2", None)),
        ("hf://datasets/nyu-mll/glue@v1/sst2/train", ("nyu-mll/glue", "v1", "sst2", "train")),
    ],
)
def test_parts_of_a_source(source: str, parts: tuple[str | None, ...]) -> None:
    assert hub.parse(source) == parts


@pytest.mark.parametrize("source", ["hf://datasets/", "hf://datasets/a/b/c/d/e"])
def test_too_few_or_too_many_parts(source: str) -> None:
    with pytest.raises(SourceError, match="write hf://datasets/OWNER/NAME"):
        hub.parse(source)


@pytest.fixture
def a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`owner/reviews` is a directory with two splits; its label is declared as a class label."""
    at = tmp_path / "hub"
    at.mkdir()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    for split, labels in (("train", [0, 1, -1]), ("test", [1, 1, 0])):
        rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": labels}, features=features)
        rows.to_parquet(str(at / f"{split}.parquet"))
    real = datasets.load_dataset

    def load(name: str, config: str | None = None, *, split: str | None = None, revision: str | None = None) -> Any:
        if name != "owner/reviews":
            raise FileNotFoundError(f"Dataset {name!r} doesn't exist on the Hub or cannot be accessed.")
        return real(str(at), config, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    datasets.disable_progress_bars()


def got(source: str, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    fetch(source, tmp_path / "raw", sha256=None, max_bytes=1 << 30, downloads=tmp_path / "downloads")
    return {path.name: pq.read_table(path).to_pylist() for path in sorted((tmp_path / "raw").iterdir())}


@pytest.mark.usefixtures("a_hub")
def test_splits_become_files_and_class_numbers_names(tmp_path: Path) -> None:
    found = got("hf://datasets/owner/reviews", tmp_path)
    assert list(found) == ["test.parquet", "train.parquet"]
    assert [row["label"] for row in found["train.parquet"]] == ["neg", "pos", None]
    found = got("hf://datasets/owner/reviews/default/test", tmp_path)
    assert json.dumps(found) == json.dumps(
        {"test.parquet": [{"text": t, "label": y} for t, y in zip("abc", ["pos", "pos", "neg"], strict=True)]}
    )
    assert list(got("hf://datasets/owner/reviews/test", tmp_path)) == ["test.parquet"]


@pytest.mark.usefixtures("a_hub")
def test_what_the_hub_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"owner/none cannot be fetched .*doesn't exist on the Hub"):
        got("hf://datasets/owner/none", tmp_path)
    with pytest.raises(SourceError, match="cannot be fetched"):
        got("hf://datasets/owner/reviews/default/validation", tmp_path)
