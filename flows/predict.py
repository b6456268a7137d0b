"""Score a file with a recorded model.

python -m flows.predict reviews.csv -o scored.csv --model brave-otter
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import shell
from tasks.record import conclusion
from tasks.scoring import score
from tasks.setting import readable, workplace


@flow(name="predict", persist_result=False)
def predict(file: str, output: str, model: str = "", text: str = "text") -> State[dict[str, Any]]:
    """Write label, score and each class's probability for every row of a file.

    Args:
        file: CSV, TSV, JSON Lines or Parquet on the machine that runs this.
        output: file to write: .csv, .jsonl or .parquet.
        model: commit, branch, tag or experiment whose model is used (`production`: the one promoted). Empty: the commit.
        text: column with the text.
    """
    source, target = readable(file), str(Path(output).absolute())
    with workplace(model, {}, keep=False) as place:
        return conclusion(score(place, source, target, text))


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a shell; exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m flows.predict", description="Score a file with a recorded model.")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("-o", "--output", metavar="OUT", required=True)
    parser.add_argument("--model", default="", help="commit, branch, tag or experiment (default: what is checked out)")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="column with the text (default: text)")
    arguments = parser.parse_args(argv)
    return shell.run(lambda: predict(arguments.file, arguments.output, arguments.model, arguments.text))


if __name__ == "__main__":
    raise SystemExit(main())
