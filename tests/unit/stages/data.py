"""clean.parquet as the stages after `clean` find it, and parameters for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from dagobert.params import Params, check_params

RECIPE = {"steps": ["markup", "white_space"]}


def write_clean(path: Path, texts: list[str], labels: list[Any], group_size: int = 1000, **columns: Any) -> Path:
    """A clean.parquet; `columns` are further columns."""
    n = len(texts)
    table = pa.table(
        {
            "row_id": pa.array(range(0, 2 * n, 2), pa.int64()),  # rows between them were quarantined
            "text": pa.array(texts, pa.string()),
            "label": pa.array(labels, pa.list_(pa.string()) if labels and isinstance(labels[0], list) else pa.string()),
            "source_file": pa.array(["reviews.csv"] * n, pa.string()),
            "source_line": pa.array(range(2, n + 2), pa.int64()),
            **{name: pa.array(values) for name, values in columns.items()},
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {b"dagobert": json.dumps({"clean": RECIPE}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=group_size)
    return path


def params(repository: Path, **changes: Any) -> Params:
    """params.yaml with `section__name=value` changed."""
    values = YAML(typ="safe", pure=True).load((repository / "params.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        assert name in values[section], key
        values[section][name] = value
    return check_params(values)
