"""Short names for runs, made from the parameters that people vary: `train · lr 1e-4 · seed 42`."""

from __future__ import annotations

from pathlib import Path

from dagobert.errors import ParameterError
from dagobert.params import Params, load_params


def run_label(stage: str, root: Path) -> str:
    """What a task run is called; the stage's name alone when params.yaml cannot be read (the stage itself will say why)."""
    try:
        params = load_params(root / "params.yaml")
    except ParameterError:
        return stage
    return " · ".join([stage, *_details(stage, params)])


def _details(stage: str, params: Params) -> list[str]:
    model = params.model.name_or_path.rstrip("/").removesuffix("/model").rsplit("/", 1)[-1]
    details = {
        "fetch": [(params.data.source or params.data.path).rstrip("/").rsplit("/", 1)[-1]],
        "tokenize": [model, f"{params.tokenize.max_length} tokens"],
        "split": [params.split.strategy, f"seed {params.split.seed}"],
        "train": [f"lr {number(params.train.learning_rate)}", f"seed {params.train.seed}"],
        "evaluate": [model],
    }
    return details.get(stage, [])


def number(value: float) -> str:
    """A number as people write it: 1e-4, 0.01, 3.

    >>> number(1e-4), number(0.01), number(5e-5), number(2.0)
    ('1e-4', '0.01', '5e-5', '2')
    """
    text = f"{value:g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.3e}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"
