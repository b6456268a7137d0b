"""Try several values and seeds, each as a `finetune` run and an experiment of its own, and compare them in one table.

python -m flows.sweep -S learning_rate=[5e-5,1e-4] -S seed=[1,2,3]
"""

from __future__ import annotations

import argparse
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows import shell
from flows.finetune import finetune
from tasks.clones import resolve
from tasks.record import figures
from tasks.setting import at_home
from tasks.trials import NO_TRIALS, TrialsForm, conclusion, label, show_table, trials


@flow(name="sweep", persist_result=False)
def sweep(values: TrialsForm = NO_TRIALS, revision: str = "") -> State[dict[str, Any]]:
    """Try every combination of the values on one commit; a trial that fails does not keep the others from running.

    Args:
        values: what to try.
        revision: commit, branch, tag or experiment to start from. Empty: what is checked out now.
    """
    with at_home() as origin:
        commit = resolve(origin, revision)
        rows = []
        for trial in trials(values):
            named = finetune.with_options(flow_run_name=f"{flow_run.name} · {label(trial)}")
            outcome: State[Any] = named(trial, commit, return_state=True)
            rows.append({"trial": label(trial), **figures(origin, outcome)})
        return conclusion(show_table(rows))


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a shell; exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description="Try several values, each as an experiment.")
    parser.add_argument("--revision", default="", help="commit, branch, tag or experiment (default: what is checked out)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="NAME=[VALUE,…]", help="values to try")
    arguments = parser.parse_args(argv)
    return shell.run(lambda: sweep(shell.lists(TrialsForm, arguments.set), arguments.revision))


if __name__ == "__main__":
    raise SystemExit(main())
