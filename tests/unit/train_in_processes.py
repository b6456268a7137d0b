"""Started by a test, alone or by torchrun: train the tiny BERT, once undisturbed and once stopped and resumed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from dagobert import distributed
from dagobert.checkpoints import Checkpoints
from dagobert.errors import Preempted
from dagobert.training import StopRequest, fine_tune
from tests.unit.training_examples import classifier, examples, recipe


class StopOnce(StopRequest):
    """Stops after the third step."""

    def __init__(self) -> None:
        self.left = 3

    @property
    def asked(self) -> str | None:  # type: ignore[override]
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def run(tiny_bert: Path, out: Path, stop: bool) -> None:
    """Train and write the loss curve and the weights."""
    ours = recipe()
    checkpoints = Checkpoints(out / "checkpoints")
    if stop:
        try:
            fine_tune(
                classifier(tiny_bert, ours), examples(40), examples(16, 1), ours, checkpoints=checkpoints, stop=StopOnce()
            )
        except Preempted:
            pass
        else:
            raise AssertionError("it was to stop")
    ready = classifier(tiny_bert, ours)
    outcome = fine_tune(ready, examples(40), examples(16, 1), ours, checkpoints=checkpoints)
    if distributed.rank() == 0:
        (out / "curve.txt").write_text("\n".join(f"{loss:.10f}" for _, loss in outcome.curve))
        save_file(dict(ready.model.state_dict()), out / "weights.safetensors")
    distributed.wait()


def both(tiny_bert: Path, out: Path) -> None:
    """Undisturbed into `out`, stopped and resumed into `out`-resumed."""
    for directory, stop in ((out, False), (out.with_name(out.name + "-resumed"), True)):
        directory.mkdir(parents=True, exist_ok=True)
        run(tiny_bert, directory, stop)


def main() -> None:
    """Arguments: the tiny BERT, the directory to write into."""
    torch.set_num_threads(1)
    distributed.start(torch.device("cpu"))
    both(Path(sys.argv[1]), Path(sys.argv[2]))
    distributed.stop()


if __name__ == "__main__":
    main()
