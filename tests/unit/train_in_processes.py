"""Started by a test, alone or by torchrun: train the tiny BERT, once undisturbed and once stopped and resumed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from dagobert import distributed
from dagobert.checkpoints import Checkpoints
from dagobert.errors import NonFiniteLossError, Preempted
from dagobert.training import StopRequest, Trainer, fine_tune
from tests.unit.training_examples import classifier, examples, recipe


class StopOnce(StopRequest):
    """Stops when it has been looked at n times: after each step, and after each batch of a validation."""

    def __init__(self, n: int) -> None:
        self.left = n

    @property
    def asked(self) -> str | None:  # type: ignore[override]
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def run(tiny_bert: Path, out: Path, stop: StopRequest | None) -> None:
    """Train and write the loss curve and the weights."""
    ours = recipe()
    checkpoints = Checkpoints(out / "checkpoints")
    if stop is not None:
        try:
            fine_tune(classifier(tiny_bert, ours), examples(40), examples(16, 1), ours, checkpoints=checkpoints, stop=stop)
        except Preempted as error:
            (out / f"stopped-{distributed.rank()}.txt").write_text(str(error))
            found = checkpoints.latest()[0]
            assert found is not None
            assert found.state["validation"] == []  # it was left, or not yet begun
        else:
            raise AssertionError("it was to stop")
    ready = classifier(tiny_bert, ours)
    outcome = fine_tune(ready, examples(40), examples(16, 1), ours, checkpoints=checkpoints)
    if distributed.rank() == 0:
        (out / "curve.txt").write_text("\n".join(f"{loss:.10f}" for _, loss in outcome.curve))
        save_file(dict(ready.model.state_dict()), out / "weights.safetensors")
    distributed.wait()


def both(tiny_bert: Path, out: Path) -> None:
    """Undisturbed into `out`; stopped after three steps, or while one process validates, and resumed, beside it."""
    in_second = StopOnce(5) if distributed.rank() == 1 else StopRequest()
    runs: list[tuple[str, StopRequest | None]] = [("", None), ("-resumed", StopOnce(3))]
    if distributed.world() > 1:
        runs.append(("-validating", in_second))
    for suffix, stop in runs:
        directory = out.with_name(out.name + suffix)
        directory.mkdir(parents=True, exist_ok=True)
        run(tiny_bert, directory, stop)


def not_finite(tiny_bert: Path, out: Path) -> None:
    """Train on one row that gives NaN, the last of the first step with a word of its own; write what each process says."""
    data, ours = examples(40), recipe()
    run = Trainer(classifier(tiny_bert, ours), data, examples(16, 1), ours, None, StopRequest())
    index = run._step_index()
    words = [set(data.store.sequence(int(i)).tolist()) for i in index]
    own = [mine - set().union(*words[:i], *words[i + 1 :]) for i, mine in enumerate(words)]
    at = max(i for i, found in enumerate(own) if found)
    with torch.no_grad():
        run.named["bert.embeddings.word_embeddings.weight"][min(own[at])] = float("nan")
    try:
        run.run()
    except NonFiniteLossError as error:
        out.with_name(f"{out.name}-nan-{distributed.rank()}.txt").write_text(str(error).split("train.learning_rate")[0])
    if distributed.rank() == 1 and at >= distributed.share(run.lengths[index]).start:
        out.with_name(f"{out.name}-nan.txt").write_text(str(data.row_ids[index[at]]))


def main() -> None:
    """Arguments: the tiny BERT, the directory to write into."""
    torch.set_num_threads(1)
    distributed.start(torch.device("cpu"))
    both(Path(sys.argv[1]), Path(sys.argv[2]))
    not_finite(Path(sys.argv[1]), Path(sys.argv[2]))
    distributed.stop()


if __name__ == "__main__":
    main()
