"""Random sequences of edit, run, save, checkout, reproduce: a clean status never lies about what the outputs belong to.

The oracle runs the stages elsewhere, without DVC, for the parameters, code and source that lie in the tree.

    python -m tests.reproduce.sequences [STEPS [SEED]]      500 steps by default, about half an hour on 2 cores
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from dagobert.errors import RepositoryError
from dagobert.experiments import record
from dagobert.repository import Repository
from dagobert.reproduction import reproduce
from tests.reproduce import toy

EDITS = [("clean", "lower", [True, False]), ("tokenize", "max_length", [3, 4, 5]), ("split", "seed", [1, 2, 42])]
EDITS += [("train", "seed", [1, 2, 42]), ("train", "learning_rate", [0.0001, 0.0002])]


class Player:
    """Does one random thing at a time to a repository and checks what must always hold."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.repository = Repository(root)
        self.recorded: list[str] = ["main"]
        self.saved = self.clean = self.reproduced = 0
        self.log: list[str] = []

    def play(self, steps: int) -> None:
        actions = [self.edit_parameter] * 4 + [self.edit_code, self.edit_source, self.tamper] + [self.run] * 4
        actions += [self.save] * 3 + [
            self.commit,
            self.checkout,
            self.checkout,
            self.reproduce,
            self.reproduce,
            self.single_stage,
        ]
        for _ in range(steps):
            action = self.rng.choice(actions)
            self.log.append(action.__name__)
            action()
            self.check()

    def check(self) -> None:
        if self.repository.status() == {}:
            self.clean += 1
            belongs = toy.expected(self.root, self.root.parent / "oracle")
            assert toy.contents(self.root) == belongs, self.log

    def edit_parameter(self) -> None:
        section, name, values = self.rng.choice(EDITS)
        toy.set_param(self.root, section, name, self.rng.choice(values))

    def edit_code(self) -> None:
        path = self.root / "code/tokenize.py"
        body = path.read_text().split("# version")[0]
        version = self.rng.choice([1, 2])
        body = body.replace("len(word) + 1", "len(word)")
        body = body.replace("len(word)", "len(word) + 1") if version == 2 else body
        path.write_text(f"{body}# version {version}\n")

    def edit_source(self) -> None:
        name = self.root.parent / f"source-{self.rng.choice([1, 2])}.csv"
        name.write_text(toy.source_text(salt=int(name.stem[-1])))
        toy.set_param(self.root, "data", "source", str(name))

    def tamper(self) -> None:
        """Somebody edits an output by hand."""
        path = self.root / self.rng.choice(["data/splits.json", "models/finetuned/config.json", "reports/metrics.json"])
        if path.exists():
            content = path.read_bytes()
            path.unlink()  # outputs may be linked to the cache
            path.write_bytes(content + b" ")

    def run(self) -> None:
        toy.repro(self.root)
        assert self.repository.status() == {}, self.log

    def single_stage(self) -> None:
        """A stage alone, as the flow does it; it may fail or leave later stages behind."""
        stage = self.rng.choice(["clean", "tokenize", "split", "train"])
        toy.dvc(self.root, "repro", "--quiet", "--single-item", stage)

    def save(self) -> None:
        self.saved += 1
        name = f"exp-{self.saved}"
        clean = self.repository.status() == {}
        try:
            record(self.repository, name)
            self.recorded.append(name)
            refused = False
        except RepositoryError:
            refused = True
        assert refused != clean, self.log

    def commit(self) -> None:
        if self.repository.status() == {}:
            toy.commit(self.root, "Keep")

    def checkout(self) -> None:
        commit = self.repository.resolve(self.rng.choice(self.recorded))
        toy.git(self.root, "restore", f"--source={commit}", "--worktree", "--", ":/")
        toy.dvc(self.root, "checkout", "--quiet", "--force")
        assert self.repository.status() == {}, self.log

    def reproduce(self) -> None:
        self.reproduced += 1
        assert reproduce(self.repository, self.rng.choice(self.recorded)).verdict == "identical", self.log


def main(steps: int, seed: int) -> None:
    """Play, then reproduce everything that was recorded."""
    with tempfile.TemporaryDirectory(prefix="dagobert-sequences-") as folder:
        root = Path(folder) / "repository"
        toy.make(root, Path(folder) / "source.csv")
        player, started = Player(root, seed), time.monotonic()
        for step in range(0, steps, 10):
            player.play(min(10, steps - step))
            print(f"{step + 10:4} steps, {len(player.recorded)} recorded, clean {player.clean} times", flush=True)
        for name in player.recorded:
            report = reproduce(player.repository, name)
            assert report.verdict == "identical", (name, report)
        counts = f"{steps} steps, {player.clean} clean states checked, {len(player.recorded)} experiments"
        print(
            f"{counts}, {player.reproduced + len(player.recorded)} reproductions identical, {time.monotonic() - started:.0f} s"
        )


if __name__ == "__main__":
    main(*(int(value) for value in [*sys.argv[1:], *["500", "1"][len(sys.argv) - 1 :]]))
