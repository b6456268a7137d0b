from __future__ import annotations

from pathlib import Path

import pytest

from tests.reproduce import toy


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy repository with one recorded run; never written to."""
    folder = tmp_path_factory.mktemp("template")
    toy.make(folder / "repository", folder / "source.csv")
    return folder / "repository"


@pytest.fixture
def toy_root(template: Path, tmp_path: Path) -> Path:
    """A toy repository of this test's own (the source file is shared: replace it, do not edit it)."""
    return toy.copy(template, tmp_path / "repository")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests of this room wait until they are asked for: `make test-reproduce`, `pytest -m slow tests/reproduce`."""
    if not config.option.markexpr:
        for item in items:
            if Path(__file__).parent in item.path.parents and "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: make test-reproduce"))
