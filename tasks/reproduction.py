"""Has `dagobert reproduce` run a past experiment again, shows its report, and makes its verdict the state of the run."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from tasks import dvc, limits, markdown, processes
from tasks.errors import StageError, StageInterruptedError
from tasks.stages import gpu_lease

KEY = "reproduction"
LONGEST = 7 * 24 * 3600.0  # seconds
EXIT_CODES = {"Identical": 0, "WithinTolerance": 0, "Different": 1}  # by name of the state; all others: 2
STATES = {"identical": "Identical", "within tolerance": "WithinTolerance", "different": "Different", "cannot run": "CannotRun"}


@task(
    name="reproduce",
    task_run_name="reproduce · {revision}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def reproduce_revision(root: Path, revision: str, fetch: bool, pull: bool) -> dict[str, Any]:
    """Reproduce a revision of the repository at `root`; its working tree is not touched.

    Raises:
        StageError: there is no such revision, or the command came to no verdict.
    """
    with TemporaryDirectory(prefix="dagobert-") as folder:
        found, shown = Path(folder) / "report.json", Path(folder) / "report.md"
        command = ["dagobert", "reproduce", "--json", str(found), "--markdown", str(shown)]
        command += ["--fetch"] * fetch + ["--pull"] * pull + ["--", revision]
        logger = get_run_logger()
        limits.wait_for_server()
        with gpu_lease():
            done = processes.run(
                command, root, dvc.environment(root), timeout=LONGEST, on_line=lambda line: logger.info("%s", line)
            )
        if not found.is_file():
            kind = StageInterruptedError if done.returncode > 128 else StageError
            raise kind("\n".join(done.tail[-20:]) or f"`{' '.join(command)}` ended with exit code {done.returncode}")
        report: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        create_markdown_artifact(
            markdown=shown.read_text(encoding="utf-8"), key=KEY, description=f"{markdown.text(revision)}: {report['verdict']}"
        )
    told = ("revision", "commit", "verdict", "exit_code", "first", "causes", "missing")
    return {name: report[name] for name in told}


def state_of(report: dict[str, Any]) -> State[dict[str, Any]]:
    """The state that says what the report says: completed for exit code 0, failed for the others."""
    verdict = str(report["verdict"])
    first = f", first in {report['first']}" if report["first"] and verdict != "identical" else ""
    causes = "".join(f"\n{line}" for line in [*report["causes"], *report["missing"]][:5])
    make = Completed if report["exit_code"] == 0 else Failed
    data = {"revision": report["revision"], "commit": report["commit"], "verdict": verdict}
    state: State[dict[str, Any]] = make(
        name=STATES[verdict], message=f"{report['revision']}: {verdict}{first}{causes}", data=data
    )
    return state
