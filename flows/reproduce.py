"""Run a past experiment again and say whether it came out the same.

python -m flows.reproduce brave-otter
"""

from __future__ import annotations

import argparse
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import shell
from tasks.reproduction import EXIT_CODES, reproduce_revision, state_of
from tasks.setting import at_home


@flow(name="reproduce", persist_result=False)
def reproduce(revision: str = "HEAD", fetch: bool = False, pull: bool = False) -> State[dict[str, Any]]:
    """Compare every output with what was recorded, in a clone; the state is the verdict, the artifact its reasons.

    Args:
        revision: commit, branch, tag or experiment.
        fetch: get the data from its source again, not the recorded snapshot.
        pull: get what is missing or damaged from the DVC remote.
    """
    with at_home() as origin:
        return state_of(reproduce_revision(origin, revision, fetch, pull))


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a shell; the exit codes of `dagobert reproduce`: 1: different, 2: cannot run, or no such revision."""
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description="Run a past experiment again.")
    parser.add_argument("revision", metavar="REV", nargs="?", default="HEAD", help="commit, branch, tag or experiment")
    parser.add_argument("--fetch", action="store_true", help="get the data from its source again")
    parser.add_argument("--pull", action="store_true", help="get what is missing from the DVC remote")
    arguments = parser.parse_args(argv)
    states: list[State[Any]] = []
    code = shell.run(lambda: states.append(reproduce(arguments.revision, arguments.fetch, arguments.pull, return_state=True)))
    return code or EXIT_CODES.get(str(states[0].name), 2)


if __name__ == "__main__":
    raise SystemExit(main())
