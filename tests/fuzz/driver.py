"""Runs a case through the stages in this process and says what is wrong with the result."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ruamel.yaml import YAML

from dagobert import files
from dagobert.errors import DagobertError
from dagobert.params import Params, check_params
from dagobert.stages import clean, encode_labels, fetch, split
from tests.fuzz.cases import Case

TIME_LIMIT = 60  # seconds a case may take before it counts as a hang


class Failure(Exception):
    """What a case must not do."""


def run(case: Case, base: dict[str, Any]) -> str:
    """Run a case in the current directory, which is emptied first; how it ended.

    Raises:
        Failure: rows lost or invented, a leak, a file refused that is in order, a hang.
        Exception: whatever else came out of a stage is a failure, too.
    """
    _empty()
    source = Path("source")
    for name, raw in case.files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(raw)
    alone = [name for name in case.files if "/" not in name] if len(case.files) == 1 else []
    params = parameters(base, str(source / alone[0]) if alone else str(source), case.params)
    with _time_limit():
        try:
            fetch.run(params)
            clean.run(params)
        except DagobertError as error:
            return _refused(case, error)
        read = _check_rows(case)
        try:
            encode_labels.run(params)
            split.run(params)
        except DagobertError as error:
            return f"{type(error).__name__} after clean"
    _check_split()
    return f"split ({'no' if not read else 'some'} rows)"


def parameters(base: dict[str, Any], source: str, changes: dict[str, Any]) -> Params:
    """params.yaml for a case."""
    values = json.loads(json.dumps(base))
    values["data"] |= {"source": source, "where": {}, **changes}
    values["clean"] |= {"max_quarantined": 1.0}
    values["labels"] |= {"names": {}}
    values["split"] |= {"strategy": "random", "train_size": "all", "validation_size": 0.2, "test_size": 0.2}
    return check_params(values)


def base_parameters(repository: Path) -> dict[str, Any]:
    """params.yaml as plain values."""
    values: dict[str, Any] = YAML(typ="safe", pure=True).load((repository / "params.yaml").read_text(encoding="utf-8"))
    return values


@contextlib.contextmanager
def no_fsync() -> Iterator[None]:
    """Leave the disk alone: 10,000 cases would wait for it 100,000 times."""
    before, files.sync = files.sync, lambda path: None
    try:
        yield
    finally:
        files.sync = before


def _refused(case: Case, error: DagobertError) -> str:
    message = str(error)
    if not message or "Traceback" in message:
        raise Failure(f"{case.name}: an error without a message") from error
    report = Path("reports/data.json")
    if type(error).__name__ == "DataContractError" and report.exists():  # it was read, and found wanting
        _check_count(case, json.loads(report.read_text(encoding="utf-8")))
        return "DataContractError"
    if case.readable:
        raise Failure(f"{case.name}: refused, though it is in order: {message}") from error
    return type(error).__name__


def _check_count(case: Case, report: dict[str, Any]) -> None:
    quarantined = pq.read_metadata("data/quarantine.parquet").num_rows
    total = report["rows_not_selected"] + report["rows_out"] + quarantined
    if not report["rows_read"] == total or sum(report["quarantined_by_reason"].values()) != quarantined:
        raise Failure(f"{case.name}: {report['rows_read']} rows read, {total} accounted for")
    if case.records is not None and report["rows_read"] != case.records:
        raise Failure(f"{case.name}: {report['rows_read']} rows read where {case.records} were counted")


def _check_rows(case: Case) -> int:
    _check_count(case, json.loads(Path("reports/data.json").read_text(encoding="utf-8")))
    kept, aside = pq.read_table("data/clean.parquet"), pq.read_table("data/quarantine.parquet")
    ids = [*kept["row_id"].to_pylist(), *aside["row_id"].to_pylist()]
    if sorted(ids) != list(range(len(ids))):
        raise Failure(f"{case.name}: row ids are not 0 to {len(ids) - 1} once each")
    if aside["reason"].null_count or aside["source_line"].null_count or kept["source_line"].null_count:
        raise Failure(f"{case.name}: a row without reason or line")
    for value in kept["text"].to_pylist():
        if not value or value != " ".join(value.split()):
            raise Failure(f"{case.name}: a text that is not clean: {value!r}")
    return len(ids)


def _check_split() -> None:
    sides = pq.read_table("data/splits.parquet")
    kept = pq.read_table("data/clean.parquet")
    if sides["row_id"].to_pylist() != kept["row_id"].to_pylist():
        raise Failure("rows of clean.parquet are missing in splits.parquet")
    seen: dict[str, str] = {}
    for value, side in zip(kept["text"].to_pylist(), sides["split"].to_pylist(), strict=True):
        if seen.setdefault(_bare(value), side) != side:
            raise Failure(f"{value!r} stands on two sides")


def _bare(value: str) -> str:
    kept = [c for c in value.lower() if not c.isspace() and unicodedata.category(c)[0] not in "PZ"]
    return "".join(kept) or value


def _empty() -> None:
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    processor = time.process_time()

    def stop(*_: object) -> None:
        # A case that waits and one that computes look alike from outside: the stacks and the processor time tell them apart.
        faulthandler.dump_traceback(all_threads=True)
        used = time.process_time() - processor
        raise Failure(f"not done after {TIME_LIMIT} s, of them {used:.1f} s of the processor; load {os.getloadavg()[0]:.1f}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(TIME_LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_memory() -> int:
    """Most memory this process has had, bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
