"""Runs one stage as a process: parameters in, events out, and no finish if an input changed underneath it.

`dvc.lock` records a stage's inputs, code and parameters as they are *after* its command. Without the check here, a file or a
value that is edited while a stage runs would be recorded as the one the outputs were made from.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dagobert import events, files
from dagobert.errors import DamagedObjectError, InputsChangedError
from dagobert.lifeline import end_with_parent
from dagobert.stages import paths

if TYPE_CHECKING:
    from dagobert.params import Params

STAGES = {
    "fetch": "get the data named by data.source, check it and keep a snapshot",
    "clean": "read the rows, clean the text, quarantine what cannot be used",
    "encode-labels": "turn labels into class ids",
    "tokenize": "turn text into token shards",
    "split": "choose the rows that train, validate and test",
    "train": "fine-tune the model",
    "evaluate": "judge the model on rows it never saw, and write the report",
}


class StageModule(Protocol):
    """What a module in `dagobert.stages` offers."""

    OUTPUTS: tuple[Path, ...]

    def inputs(self, params: Params) -> list[Path]:
        """Files and directories the stage reads."""

    def run(self, params: Params) -> None:
        """Read the inputs, write the outputs."""


def stage_module(name: str) -> StageModule:
    """The module of a stage, imported when it is asked for (torch is heavy)."""
    module: StageModule = importlib.import_module(f"dagobert.stages.{name.replace('-', '_')}")
    return module


def run_stage(name: str) -> None:
    """Run a stage in the current directory.

    Raises:
        DagobertError: what is wrong, where, and what to do.
    """
    from dagobert.params import load_params

    params = load_params(paths.PARAMS)
    module = stage_module(name)
    if "DVC_STAGE" in os.environ:
        end_with_parent()  # DVC leaves its child running otherwise, which would write into outputs
        _check_what_it_reads(name, module.inputs(params))
    with events.recording(name, paths.EVENTS / f"{name}.jsonl"):
        before = _what_it_depends_on(name, module, params)
        module.run(params)
        after = _what_it_depends_on(name, module, params)
        changed = [what for what, was in before.items() if after.get(what) != was]
        if changed:
            raise InputsChangedError(
                f"{', '.join(changed)} changed while {name} was running, so its outputs belong to neither version. "
                f"Run it again."
            )


def _check_what_it_reads(name: str, inputs: list[Path]) -> None:
    """Refuse outputs of earlier stages that are not what those stages wrote."""
    from dagobert.declared import not_as_recorded

    for path, stage in sorted(not_as_recorded(inputs).items()):
        raise DamagedObjectError(
            f"{path} is not what {stage} wrote, by the hash in dvc.lock, so {name} does not read it. Remove it and run "
            f"`dvc repro`, which takes it from the cache or makes it again; `dagobert fsck` looks for damage in the cache."
        )


def _what_it_depends_on(name: str, module: StageModule, params: Params) -> dict[str, Any]:
    """Hashes of the stage's inputs and code, and the values of its parameters, by name."""
    from dagobert.declared import declared

    inputs = {str(path): files.sha256_tree(path) if path.exists() else None for path in module.inputs(params)}
    return declared(name, paths.PARAMS) | inputs
