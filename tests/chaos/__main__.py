"""`python -m tests.chaos --kills 200`: kill 200 trainings at random points, up to five in a row, and compare the final SHA-256.

Each life of a run is a forked process, so torch is imported once. It dies by SIGKILL, either from outside after a random
time or, inside the saving of a checkpoint, at a random one of its calls that change the disk. Then the same with a full
disk (ENOSPC at a random call) and with checkpoints that are flipped, cut or emptied between two lives. With `--again N` the
train stage also runs N times undisturbed, each time in a new process, and all must publish the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from dagobert import files
from dagobert.checkpoints import Checkpoints
from dagobert.errors import StorageError
from dagobert.heads import classification
from dagobert.stages import paths
from dagobert.stages.train import OUTPUTS
from dagobert.training import fine_tune
from tests.evaluation_inputs import write_inputs
from tests.unit.training_examples import REPOSITORY, classifier, examples, recipe

INSIDE_A_SAVE = 0.3  # share of the kills that fall into the saving of a checkpoint
MOST_IN_A_ROW = 5
SETTINGS: dict[str, Any] = {"save_steps": 2, "num_train_epochs": 2, "eval_strategy": "steps", "eval_steps": 5}


def tiny_bert(path: Path, width: int = 32) -> None:
    """A random BERT of 2 layers, as in the unit tests."""
    torch.manual_seed(0)
    shape = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 2 * width}
    with classification.quiet():
        BertModel(BertConfig(vocab_size=90, max_position_embeddings=64, **shape)).save_pretrained(path)


def train(model: Path, run: Path) -> None:
    """Train in `run`, going on from its checkpoints; publish the weights."""
    ours = recipe(**SETTINGS)
    ready = classifier(model, ours)
    fine_tune(ready, examples(40), examples(16, 1), ours, checkpoints=Checkpoints(run / "checkpoints"))
    with files.atomic_directory(run / "model") as directory:
        save_file(dict(ready.model.state_dict()), directory / "model.safetensors")


@contextlib.contextmanager
def at_call(number: int, then: Callable[[], None]) -> Iterator[None]:
    """Do `then` before the nth call that changes the disk: in this process, which is about to die or fail."""
    calls = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                then()
            return original(*arguments, **named)

        return call

    # what a save does: write the tensors, the state and the manifest, flush each, rename, flush the directory, remove the old
    places: list[tuple[Any, str]] = [
        (files, "sync"),
        (os, "replace"),
        (shutil, "rmtree"),
        (Path, "mkdir"),
        (Path, "write_text"),
    ]
    before = [getattr(owner, name) for owner, name in places]
    for (owner, name), original in zip(places, before, strict=True):
        setattr(owner, name, counted(original))
    try:
        yield
    finally:
        for (owner, name), original in zip(places, before, strict=True):
            setattr(owner, name, original)


def live(model: Path, run: Path, *, die_at: int = 0, full_at: int = 0, kill_after: float | None = None) -> int:
    """One life of a run in a forked process; its wait status."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    child = os.fork()
    if child == 0:
        code = 1
        try:
            with at_call(die_at or full_at, die if die_at else fail):
                train(model, run)
            code = 0
        except StorageError:
            code = StorageError.exit_code
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def damage(run: Path, chance: random.Random) -> str:
    """Harm a file of the newest checkpoint."""
    found = Checkpoints(run / "checkpoints").found()
    if not found:
        return "nothing yet"
    path = chance.choice(sorted(found[-1].iterdir()))
    data = bytearray(path.read_bytes())
    how = chance.choice(["flipped", "cut", "emptied", "removed"])
    if how == "removed" or not data:
        path.unlink()
    elif how == "flipped":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    else:
        path.write_bytes(data[: chance.randrange(len(data))] if how == "cut" else b"")
    return how


def result(run: Path) -> str | None:
    """SHA-256 of the published weights; None where nothing was published."""
    path = run / "model" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


class Chaos:
    """Trials until enough was done, and their count."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance, self.count = root, random.Random(seed), Counter[str]()
        self.model = root / "bert"
        tiny_bert(self.model)
        started = time.monotonic()
        status = live(self.model, root / "undisturbed")
        assert status == 0, f"the undisturbed run failed: {status}"
        self.seconds = time.monotonic() - started
        self.expected = result(root / "undisturbed")
        self.calls = 60  # more than the disk-changing calls of a run's first saves

    def finish(self, run: Path, kind: str) -> None:
        """Let the run end and compare."""
        status = live(self.model, run)
        self.count["runs"] += 1
        if status != 0 or result(run) != self.expected:
            self.count["different"] += 1
            print(f"DIFFERENT after {kind}: status {status}, seed state kept in {run}", file=sys.stderr)
        else:
            shutil.rmtree(run)

    def kills(self, number: int) -> None:
        """Kill `number` runs, each up to five times in a row."""
        while self.count["killed runs"] < number:
            run, before = self.root / f"kills-{self.count['runs']}", self.count["kills"]
            for _ in range(self.chance.randint(1, MOST_IN_A_ROW)):
                inside = self.count["inside a save"] < INSIDE_A_SAVE * (self.count["kills"] + 1)
                if inside:
                    status = live(self.model, run, die_at=self.chance.randint(1, self.calls))
                else:
                    status = live(self.model, run, kill_after=self.chance.uniform(0, self.seconds))
                if os.WIFSIGNALED(status):
                    self.count["kills"] += 1
                    self.count["inside a save"] += inside
                elif status == 0 and result(run) != self.expected:
                    self.count["different"] += 1
                elif status == 0:  # it ended before it was killed: begin another run
                    break
            self.count["killed runs"] += self.count["kills"] > before
            self.finish(run, "kills")

    def full_disks(self, number: int) -> None:
        """The disk is full at a random call; then it has room again."""
        for _ in range(number):
            run = self.root / f"full-{self.count['runs']}"
            status = live(self.model, run, full_at=self.chance.randint(1, self.calls))
            self.count["full disks"] += os.waitstatus_to_exitcode(status) == StorageError.exit_code
            self.finish(run, "a full disk")

    def damages(self, number: int) -> None:
        """The newest checkpoint is damaged between two lives."""
        for _ in range(number):
            run = self.root / f"damage-{self.count['runs']}"
            live(self.model, run, die_at=self.chance.randint(20, self.calls))
            self.count[f"checkpoint {damage(run, self.chance)}"] += 1
            self.finish(run, "damage")


def workspace(root: Path) -> None:
    """The inputs of the train stage, a BERT that is large enough for two threads, and params.yaml: bf16 where there is any."""
    write_inputs(root, rows=160, sizes=(100, 30, 30))
    tiny_bert(root / "bert", width=256)
    document = YAML().load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    document["train"] = recipe(threads=2, precision="auto", train_batch_size=16, num_train_epochs=1).model_dump(mode="json")
    document["model"]["name_or_path"] = "bert"
    YAML().dump(document, root / paths.PARAMS)


def again(root: Path, number: int) -> bool:
    """Run the train stage in `number` new processes; whether all published the same bytes."""
    workspace(root)
    search = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    found = Counter[tuple[str, ...]]()
    for _ in range(number):
        for path in (paths.MODEL, paths.CHECKPOINTS):
            shutil.rmtree(root / path, ignore_errors=True)
        command = [sys.executable, "-m", "dagobert", "train"]
        subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": search}, check=True, capture_output=True)
        found[tuple(files.sha256_tree(root / path) for path in OUTPUTS)] += 1
    report = files.read_json(root / paths.TRAIN_REPORT)
    how = f"{report['precision']}, {report['threads']} threads"
    print(f"{max(found.values())} of {number} new processes published the same bytes ({how})")
    return len(found) == 1


def main() -> int:
    """Run the trials; 1 where a run ended differently."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="runs that are killed, once to five times each")
    parser.add_argument("--full-disks", type=int, default=None, help="default: a tenth of the kills")
    parser.add_argument("--damages", type=int, default=None, help="default: a tenth of the kills")
    parser.add_argument("--again", type=int, default=0, help="undisturbed runs of the stage, each in a new process")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tenth = max(1, arguments.kills // 10)
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="dagobert-chaos-"))
    chaos = Chaos(root, arguments.seed)
    chaos.kills(arguments.kills)
    chaos.full_disks(tenth if arguments.full_disks is None else arguments.full_disks)
    chaos.damages(tenth if arguments.damages is None else arguments.damages)
    count = chaos.count
    different = count.pop("different", 0)
    print(", ".join(f"{n} {what}" for what, n in count.items()))
    print(f"{count['runs'] - different} of {count['runs']} runs ended with the bytes of the undisturbed one")
    equal = arguments.again == 0 or again(root / "again", arguments.again)
    if different == 0 and equal:
        shutil.rmtree(root)
    return int(different > 0 or not equal)


if __name__ == "__main__":
    sys.exit(main())
