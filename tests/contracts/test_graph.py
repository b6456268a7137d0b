"""dvc.yaml, the stages' code and their modules agree."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dagobert.params import Params, load_params
from dagobert.runner import STAGES, stage_module

# Code that carries values and messages but shapes no output: a change here reruns nothing.
# params only checks what params.yaml says and passes it on unchanged (test_params.py), and DVC tracks the values themselves.
PLUMBING = {
    "__init__",
    "__main__",
    "cli",
    "errors",
    "events",
    "runner",
    "declared",
    "locks",
    "lifeline",
    "torchrun",
    "stages",
    "stages.__init__",
    "stages.paths",
}


@pytest.fixture(scope="module")
def graph(repository: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return stages


@pytest.fixture(scope="module")
def params(repository: Path) -> Params:
    return load_params(repository / "params.yaml")


def runtime_imports(tree: ast.Module) -> set[str]:
    """Modules of the library that a file imports when it runs (not `if TYPE_CHECKING:`)."""
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("dagobert.") for name in found if name.startswith("dagobert.")}


def closure(repository: Path, stage: str) -> set[str]:
    """Files of the library that a stage's module imports, directly or not, plumbing left out."""
    library = repository / "dagobert"
    todo, seen = {f"stages.{stage.replace('-', '_')}"}, set()
    files: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        if name in PLUMBING or name.split(".")[0] == "params":
            continue
        base = library.joinpath(*name.split("."))
        path = base.with_suffix(".py") if base.with_suffix(".py").exists() else base / "__init__.py"
        if not path.exists():
            continue  # a name inside a module
        files.add(path.relative_to(repository).as_posix())
        todo |= runtime_imports(ast.parse(path.read_text(encoding="utf-8"))) - seen
        if "." in name and (library / name.split(".")[0] / "__init__.py").exists() and name.split(".")[0] != "stages":
            todo |= {name.split(".")[0]} - seen
    return files


def names(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def resolved(graph: dict[str, Any], stage: str, key: str, params: Params) -> set[str]:
    values = {"${data.path}": params.data.path, "${tokenize.add_words}": params.tokenize.add_words}
    return {values.get(name, name) for name in names(graph[stage].get(key, []))}


def test_stages_are_those_of_the_command_line(graph: dict[str, Any]) -> None:
    assert list(graph) == list(STAGES)
    assert [stage["cmd"] for stage in graph.values()] == [f"dagobert {name}" for name in STAGES]
    assert [stage["desc"] for stage in graph.values()] == list(STAGES.values())


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_import_closure(repository: Path, graph: dict[str, Any], params: Params, stage: str) -> None:
    deps = {name for name in resolved(graph, stage, "deps", params) if name.startswith("dagobert/")}
    listed: set[str] = set()
    for name in deps:
        path = repository / name
        assert path.exists(), f"{stage}: {name} does not exist"
        listed |= {p.relative_to(repository).as_posix() for p in path.rglob("*.py")} if path.is_dir() else {name}
    needed = closure(repository, stage)
    assert needed - listed == set(), "imported but not in dvc.yaml"
    assert {n for n in listed - needed if n.endswith(".py") and "/heads/" not in n} == set(), "in dvc.yaml but not imported"


@pytest.mark.parametrize("stage", STAGES)
def test_data_edges_are_those_of_the_code(graph: dict[str, Any], params: Params, stage: str, repository: Path) -> None:
    module = stage_module(stage)
    data = {name for name in resolved(graph, stage, "deps", params) if not name.startswith("dagobert/")}
    if stage == "clean":  # what it watches are the files that data.path means just then
        assert data == {params.data.path}
    else:
        watched = [path for path in module.inputs(params) if not path.is_absolute()]
        assert data == {path.as_posix() for path in watched}
    outs = set().union(*(resolved(graph, stage, key, params) for key in ("outs", "metrics", "plots")))
    assert outs == {path.as_posix() for path in module.OUTPUTS}


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_of_a_stage_exist(graph: dict[str, Any], params: Params, stage: str) -> None:
    values: Any = params.model_dump()
    for name in graph[stage].get("params", []):
        found = values
        for part in name.split("."):
            assert part in found, f"{stage}: params.yaml has no {name}"
            found = found[part]


def test_every_parameter_reaches_a_stage(graph: dict[str, Any], params: Params) -> None:
    used = {name for stage in graph.values() for name in stage.get("params", [])}
    for section, values in params.model_dump().items():
        missing = [f"{section}.{name}" for name in values if not {section, f"{section}.{name}"} & used]
        assert not missing, "a value nobody reads"
