"""A recorded model on its way out of the repository: the model's files, its card, and the lineage that would otherwise stay
behind.

Inside the repository a model holds no commit (see `lineage`). Outside it nothing else leads back, so here the record is
written into `dagobert.json`, and the commit into the card.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from dagobert import files
from dagobert.errors import RepositoryError
from dagobert.experiments import METRICS
from dagobert.lockfile import parse_params
from dagobert.objects import md5_bytes
from dagobert.promotion import model_directory
from dagobert.record import record_faults
from dagobert.repository import LOCK, Repository

CARD, FACTS, PARAMS = "reports/model_card.md", "dagobert.json", "params.yaml"


def export(repository: Repository, revision: str, directory: Path) -> Path:
    """Write the model of a stage (`production`) or revision, every byte checked, with `README.md` (the model card) and
    `dagobert.json` (lineage, with commit, parameters and metrics) to a new directory.

    Raises:
        RepositoryError: the directory exists, nothing has this name, or bytes cannot be had.
    """
    if directory.exists():
        raise RepositoryError(f"{directory} is there already: choose a directory that is not.")
    commit = repository.resolve(revision)
    source = model_directory(repository, revision)
    with files.atomic_directory(directory) as made:
        shutil.copytree(source, made, dirs_exist_ok=True)
        own = files.read_json(made / FACTS) if (made / FACTS).is_file() else {}
        files.write_json(made / FACTS, own | {"record": _record(repository, commit), "metrics": _metrics(repository, commit)})
        card = (repository.read(commit, CARD) or f"# {directory.name}\n\n`dagobert reproduce COMMIT`\n".encode()).decode()
        (made / "README.md").write_text(card.replace("COMMIT", commit), encoding="utf-8")
    return directory


def _record(repository: Repository, commit: str) -> dict[str, Any]:
    """Which commit holds the model, and whether the model was made from exactly that commit."""
    when, who = repository.git("show", "--no-patch", "--format=%cI%x00%an", commit).split("\0")
    return {
        "commit": commit,
        "when": when,
        "who": who,
        "dirty": [fault.text for fault in record_faults(repository, commit)],
        "dvc_lock_md5": md5_bytes(repository.read(commit, LOCK) or b""),
        "params": parse_params((repository.read(commit, PARAMS) or b"").decode()),
    }


def _metrics(repository: Repository, commit: str) -> Any:
    return json.loads(repository.read(commit, METRICS) or b"null")
