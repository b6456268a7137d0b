"""`hf://datasets/NAME[@revision][/config][/split]`: a dataset of the Hugging Face hub, as one Parquet file a split.

Columns that the dataset declares as class labels hold the class names, not their numbers. Needs the package `datasets`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dagobert.errors import SourceError

_SCHEME = "hf://datasets/"


def parse(source: str) -> tuple[str, str | None, str | None, str | None]:
    """Name, revision, config and split of a source. A name is `owner/name`, or one word for a dataset without owner.

    Raises:
        SourceError: it has too many parts.
    """
    parts = [part for part in source.removeprefix(_SCHEME).split("/") if part]
    if not 1 <= len(parts) <= 4:
        raise SourceError(f"data.source: {source}: write hf://datasets/OWNER/NAME, then /config and /split if you need them.")
    name, _, revision = "/".join(parts[:2]).partition("@")
    config, split = (*parts[2:], None, None)[:2]
    return name, revision or None, config, split


def fetch_dataset(source: str, staging: Path) -> None:
    """Write the dataset into `staging`.

    Raises:
        SourceError: `datasets` is not installed, there is no such dataset, config or split, or no network.
    """
    name, revision, config, split = parse(source)
    try:
        import datasets
    except ImportError:
        raise SourceError(f"data.source: {source} needs the package datasets. pip install datasets") from None
    datasets.disable_progress_bars()
    try:
        # With two parts after the name the first is the config; with one it may be either.
        found = _load(datasets, name, config, split, revision)
    except Exception as error:  # the library raises many kinds: any of them means "cannot be fetched"
        raise SourceError(f"data.source: {source} cannot be fetched ({type(error).__name__}: {error}).") from error
    parts = {str(found.split): found} if isinstance(found, datasets.Dataset) else dict(found)
    for part, table in parts.items():
        name = re.sub(r"[^\w.-]+", "_", part)
        _with_names(datasets, table).to_parquet(str(staging / f"{name}.parquet"))


def _load(datasets: Any, name: str, config: str | None, split: str | None, revision: str | None) -> Any:
    if config is not None and split is None:
        try:
            return datasets.load_dataset(name, config, revision=revision)
        except ValueError:  # no such config: a split, then
            return datasets.load_dataset(name, split=config, revision=revision)
    return datasets.load_dataset(name, config, split=split, revision=revision)


def _with_names(datasets: Any, table: Any) -> Any:
    """The table with class names in the place of class numbers; -1 means no label."""
    features = table.features.copy()
    for column, feature in table.features.items():
        if isinstance(feature, datasets.ClassLabel):
            names = feature.names
            table = table.map(
                lambda batch, column=column, names=names: {
                    column: [None if i is None or i < 0 else names[i] for i in batch[column]]
                },
                batched=True,
                features=datasets.Features({**features, column: datasets.Value("string")}),
            )
            features = table.features.copy()
    return table
