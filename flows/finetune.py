"""From a file of labelled text to a fine-tuned model: the stages of dvc.yaml in order, watched by Prefect.

python -m flows.finetune                                   in place, like `dvc repro`, with the same bytes
python -m flows.finetune -S train.learning_rate=5e-5       in a disposable clone of the current commit, saved as an experiment
python -m flows.finetune --revision v1.0                   the same, of that commit, branch, tag or experiment
"""

from __future__ import annotations

import argparse
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import shell
from tasks.forms import AS_COMMITTED, FinetuneForm
from tasks.record import conclusion, record
from tasks.setting import workplace
from tasks.stages import clean, encode_labels, evaluate, fetch, split, tokenize, train


@flow(name="finetune", persist_result=False)
def finetune(parameters: FinetuneForm = AS_COMMITTED, revision: str = "") -> State[dict[str, Any]]:
    """Fine-tune a model and record it.

    Args:
        parameters: what to vary. What is shown is what runs.
        revision: commit, branch, tag or experiment to start from. Empty: what is checked out now.
    """
    with workplace(revision, parameters.values()) as place:
        fetch(place)
        clean(place)
        encode_labels(place)
        tokenize(place)
        split(place)
        train(place)
        evaluate(place)
        return conclusion(record(place))


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a shell; exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m flows.finetune", description="Fine-tune, watched by Prefect.")
    parser.add_argument("--revision", default="", help="commit, branch, tag or experiment to run in a disposable clone")
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="set a parameter, in a clone"
    )
    arguments = parser.parse_args(argv)
    return shell.run(lambda: finetune(shell.form(FinetuneForm, arguments.set), arguments.revision))


if __name__ == "__main__":
    raise SystemExit(main())
