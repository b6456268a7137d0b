"""Look whether the source has new data; if so fine-tune, compare with the model in service, and promote or keep.

The model in service is what `dagobert promote` put in production. The first run puts its model there.

    python -m flows.retrain
"""

from __future__ import annotations

import argparse
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import shell
from tasks.record import conclusion, record
from tasks.scoring import compare
from tasks.service import judged_before, nothing_new, promote, refresh
from tasks.setting import workplace
from tasks.stages import clean, encode_labels, evaluate, split, tokenize, train


@flow(name="retrain", persist_result=False)
def retrain(revision: str = "") -> State[dict[str, Any]]:
    """Fine-tune again when there is new data; the better model stays in service.

    Args:
        revision: commit, branch, tag or experiment to start from. Empty: what is checked out now.
    """
    with workplace(revision or "HEAD", {}) as place:
        refresh(place)
        clean(place)
        if known := judged_before(place):
            return nothing_new(known)
        encode_labels(place)
        tokenize(place)
        split(place)
        train(place)
        evaluate(place)
        experiment = record(place).result()["experiment"]
        return conclusion(promote(place, experiment, compare(place)))


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a shell; exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description="Fine-tune again when there is new data.")
    parser.add_argument("--revision", default="", help="commit, branch, tag or experiment (default: what is checked out)")
    arguments = parser.parse_args(argv)
    return shell.run(lambda: retrain(arguments.revision))


if __name__ == "__main__":
    raise SystemExit(main())
