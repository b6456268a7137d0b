"""From a file of labelled text to a fine-tuned model: the stages of dvc.yaml in order, watched by Prefect.

python -m flows.finetune        works in place, like `dvc repro`, and leaves the same bytes
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import flow

from tasks.stages import clean, encode_labels, evaluate, fetch, split, tokenize, train
from tasks.workplace import open_workplace


@flow(persist_result=False, log_prints=False)
def finetune() -> dict[str, Any]:
    """Bring every stage up to date."""
    with open_workplace(Path.cwd()) as place:
        fetch(place)
        clean(place)
        encode_labels(place)
        tokenize(place)
        split(place)
        train(place)
        evaluate(place)
        return {"root": str(place.root)}


if __name__ == "__main__":
    finetune()
    sys.exit(0)
