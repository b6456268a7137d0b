"""A stage that does next to nothing: it reads what dvc.yaml says it reads, and writes what dvc.yaml says it writes.

Each output is made from the hashes of the inputs and the parameters alone: two runs agree exactly when DVC saw the same inputs.
`fetch` reads FAKE_SOURCE too, where there is one: a source outside of the repository.
`$FAKE_FAULTS/STAGE` (default: `.dagobert/faults/STAGE`) holds one fault (JSON) that is used up by the stage that meets it, and
FAKE_SECONDS says how long stages take (JSON).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

from dagobert import events


def main(stage: str) -> int:
    read = YAML(typ="safe", pure=True).load
    params = read(Path("params.yaml").read_text())
    entry = read(Path("dvc.yaml").read_text())["stages"][stage]
    with events.recording(stage, Path(f".dagobert/events/{stage}.jsonl")):
        fault = take_fault(stage)
        digest = hashlib.sha256()
        for dep in entry.get("deps", []):
            digest.update(hash_tree(Path(re.sub(r"\$\{([^}]+)\}", lambda m: str(lookup(params, m[1])), dep))))
        for name in entry.get("params", []):
            digest.update(json.dumps(lookup(params, name), sort_keys=True).encode())
        if stage == "fetch" and "FAKE_SOURCE" in os.environ:
            digest.update(Path(os.environ["FAKE_SOURCE"]).read_bytes())
        text = digest.hexdigest()
        events.say(f"made from {text[:8]}")
        with events.progress("pretending", 10, "steps") as bar:
            for step in range(10):
                suffer(fault, step)
                bar.update(1, loss=1 / (step + 1))
                if fault.get("seconds"):
                    time.sleep(fault["seconds"] / 10)
        for out in [*entry.get("outs", []), *entry.get("metrics", [])]:
            write(Path(next(iter(out)) if isinstance(out, dict) else out), text)
    return 0


def take_fault(stage: str) -> dict[str, float]:
    slow = {"seconds": json.loads(os.environ.get("FAKE_SECONDS", "{}")).get(stage, 0)}
    path = Path(os.environ.get("FAKE_FAULTS", ".dagobert/faults")) / stage
    try:
        fault = json.loads(path.read_text())
    except FileNotFoundError:
        return slow
    path.unlink()
    return {**slow, **fault}


def suffer(fault: dict[str, float], step: int) -> None:
    if step != 5:
        return
    if "kill" in fault:
        os.kill(os.getpid(), int(fault["kill"]))
        time.sleep(10)
    if "exit" in fault:
        print("fake: told to stop", file=sys.stderr)
        sys.exit(int(fault["exit"]))
    if "error" in fault:
        raise SourceError(str(fault["error"]))
    if "deaf" in fault:  # to SIGTERM
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(fault["deaf"])


class SourceError(Exception):
    """Named like the library's."""


def lookup(params: dict, name: str) -> object:
    for part in name.split("."):
        params = params[part]
    return params


def hash_tree(path: Path) -> bytes:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)


REPORTS = {
    "reports/data.json": {
        "rows_read": 12,
        "rows_not_selected": 1,
        "rows_out": 9,
        "rows_quarantined": 2,
        "quarantined_by_reason": {"empty_text": 1, "<b>odd|reason</b>": 1},
        "labels": {"<script>alert(1)</script>": 4, "good": 5},
    },
    "reports/split.json": {
        "sizes": {"train": 5, "validation": 2, "test": 2, "unused": 0},
        "classes": {"bad": {"train": 2, "validation": 1, "test": 1}, "good": {"train": 3, "validation": 1, "test": 1}},
        "warnings": [],
    },
    "reports/train.json": {
        "best_epoch": 1,
        "validation": [{"step": 5, "epoch": 1, "loss": 0.5, "accuracy": 0.5, "macro_f1": 0.5}],
    },
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == "":
        path.mkdir(exist_ok=True)
        if path.as_posix() == "reports/evaluation":
            (path / "confusion.csv").write_text("actual,predicted\nbad,bad\ngood,bad\ngood,good\n")
        (path / "part").write_text(f"{path} {text}\n")
    elif path.as_posix() == "reports/metrics.json":
        accuracy = int(text[:4], 16) / 0xFFFF
        side = {
            "n": 100,
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.1,
            "accuracy_high": accuracy + 0.1,
            "macro_f1": accuracy,
        }
        side |= {"macro_precision": accuracy, "macro_recall": accuracy, "log_loss": 0.5, "ece": 0.1}
        side["per_class"] = {"bad": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 1}}
        path.write_text(json.dumps({"test": side, "baseline": side, "validation": side, "made_from": text}, indent=2) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps({**REPORTS.get(path.as_posix(), {}), "made_from": text}, indent=2) + "\n")
    elif path.suffix == ".csv":
        path.write_text("step,split,loss\n1,training,0.9\n2,training,0.5\n2,validation,0.6\n")
    else:
        path.write_text(re.sub(r"\s+", " ", f"{path} {text}") + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
