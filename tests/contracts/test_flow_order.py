"""The flow runs every stage of dvc.yaml once, each after those that feed it."""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from tests.flows.projects import filled


def graph(repository: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe", pure=True).load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return stages


def flow_order(repository: Path) -> list[str]:
    """Stages in the order in which the body of the flow calls them."""
    tree = ast.parse((repository / "flows" / "finetune.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    names = [
        node.func.id.replace("_", "-") for node in sorted(calls, key=lambda c: c.lineno) if isinstance(node.func, ast.Name)
    ]
    return [name for name in names if name in graph(repository)]


def feeds(out: str, dep: str) -> bool:
    return PurePosixPath(dep).is_relative_to(out) or PurePosixPath(out).is_relative_to(dep)


def test_flow_order_is_a_topological_order_of_the_graph(repository: Path) -> None:
    stages, order = graph(repository), flow_order(repository)
    assert sorted(order) == sorted(stages)
    outs = {
        name: [next(iter(out)) if isinstance(out, dict) else out for key in ("outs", "metrics") for out in stage.get(key, [])]
        for name, stage in stages.items()
    }
    params = YAML(typ="safe", pure=True).load((repository / "params.yaml").read_text(encoding="utf-8"))
    for place, name in enumerate(order):
        for dep in stages[name].get("deps", []):
            dep = filled(dep, params)
            makers = [maker for maker in stages if any(feeds(out, dep) for out in outs[maker])]
            assert all(order.index(maker) < place for maker in makers), f"{name} runs before {makers}, which make {dep}"


def test_every_stage_has_a_policy(repository: Path) -> None:
    from tasks.stages import POLICIES

    assert list(POLICIES) == list(graph(repository)) == flow_order(repository)
