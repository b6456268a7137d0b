"""A flow of one stage, in place: all that a stage goes through in a flow, in a few seconds.

python -m tests.flows.one_stage train
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import shell
from tasks.setting import workplace
from tasks.stages import POLICIES, stage_task


@flow(name="one-stage", persist_result=False)
def one_stage(stage: str) -> State[dict[str, Any]]:
    """Have one stage brought up to date, by the task and the policy that `finetune` uses."""
    with workplace("", {}) as place:
        return stage_task(stage)(place)


def main() -> int:
    """Run it as `flows.finetune` runs, with a shorter time limit if asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.flows.one_stage")
    parser.add_argument("stage", choices=POLICIES)
    parser.add_argument("--limit", type=float, help="seconds the stage may take")
    arguments = parser.parse_args()
    if arguments.limit is not None:
        POLICIES[arguments.stage] = replace(POLICIES[arguments.stage], timeout=arguments.limit)
    return shell.run(lambda: one_stage(arguments.stage))


if __name__ == "__main__":
    raise SystemExit(main())
