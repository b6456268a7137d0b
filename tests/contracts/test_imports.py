"""Imports point one way: flows → tasks → dagobert, and the library stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SHADOWING = {"tokenize", "tokenizers", "datasets", "evaluate", "types"}
ENGINE = ["encoder", "batches", "training", "optim", "checkpoints", "determinism", "scoring", "shards"]


def imported_modules(path: Path) -> Iterator[str]:
    """Every module a file imports, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [("dagobert", {"prefect", "dvc", "tasks", "flows", "bench"}), ("tasks", {"flows", "bench"}), ("flows", {"bench"})],
)
def test_rooms_import_one_way(repository: Path, room: str, forbidden: set[str]) -> None:
    files = list((repository / room).rglob("*.py"))
    assert files
    for path in files:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & forbidden, f"{path.relative_to(repository)} imports {sorted(roots & forbidden)}"


def test_tasks_use_only_the_edges_of_the_library(repository: Path) -> None:
    allowed = {"dagobert.params", "dagobert.events", "dagobert.errors", "dagobert.repository", "dagobert.locks"}
    for room in ("tasks", "flows"):
        for path in (repository / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dagobert":
                    module = node.module or ""
                    names = {f"{module}.{alias.name}" for alias in node.names} if module == "dagobert" else {module}
                    bad = {name for name in names if not any(name == a or name.startswith(a + ".") for a in allowed)}
                    assert not bad, f"{path.relative_to(repository)} imports {sorted(bad)}"


@pytest.mark.parametrize("room", ["flows", "tasks"])
def test_no_module_shadows_a_real_package(repository: Path, room: str) -> None:
    names = {path.stem for path in (repository / room).rglob("*.py")}
    assert not names & SHADOWING


def modules_after(statement: str, repository: Path) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_help_needs_no_heavy_library(repository: Path) -> None:
    loaded = modules_after("from dagobert.cli import parser; parser().format_help()", repository)
    assert not loaded & {"torch", "transformers", "pyarrow", "pandas", "numpy", "sklearn", "matplotlib"}


def test_the_engine_needs_no_pipeline_library(repository: Path) -> None:
    loaded = modules_after("import " + ", ".join(f"dagobert.{name}" for name in ENGINE), repository)
    assert not loaded & {"pydantic", "ruamel.yaml", "prefect", "dvc", "matplotlib", "jinja2", "fsspec.implementations.http"}
