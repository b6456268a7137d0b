"""A DVC repository with Dagobert's stage names and file formats, whose stages are pure functions that take 20 ms.

Everything about git, DVC, hashes, history and verdicts can be tested on it; only the learning is made up. `expected` computes
the same outputs without DVC, so that a test knows what must lie in the working tree for given parameters and source.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagobert.repository import Repository, environment

COMMON = """\
import hashlib, json, os, struct, sys
from pathlib import Path

def params():
    values = {}
    for line in Path("params.yaml").read_text().splitlines():
        name, _, value = line.partition(":")
        if line.startswith("  "):
            values[section][name.strip()] = json.loads(value)
        elif name:
            section = name
            values[section] = {}
    return values

def read(path):
    return json.loads(Path(path).read_text())

def write(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value, indent=2) + "\\n")

def number(*parts):
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
"""

STAGES = {
    "fetch": """
source = Path(params()["data"]["source"])
if not source.exists():
    sys.exit(f"dagobert fetch: {source}: no such file")
Path("data/raw").mkdir(parents=True, exist_ok=True)
Path("data/raw/source.csv").write_bytes(source.read_bytes())
write("data/source.json", {"sha256": hashlib.sha256(source.read_bytes()).hexdigest()})
""",
    "clean": """
lines = Path("data/raw/source.csv").read_text().splitlines()[1:]
rows = [dict(zip(["row_id", "text", "label"], [i, *line.rsplit(",", 1)])) for i, line in enumerate(lines)]
if params()["clean"]["lower"]:
    for row in rows:
        row["text"] = row["text"].lower()
write("data/clean.json", rows)
write("reports/data.json", {"rows_read": len(rows), "rows_not_selected": 0, "rows_out": len(rows), "rows_quarantined": 0})
""",
    "encode-labels": """
rows = read("data/clean.json")
classes = sorted({row["label"] for row in rows})
write("data/labels-of-rows.json", [classes.index(row["label"]) for row in rows])
write("data/labels.json", {"classes": classes, "names": classes})
""",
    "tokenize": """
longest = params()["tokenize"]["max_length"]
write("data/tokens/part-00000.json", [[len(word) for word in row["text"].split()][:longest] for row in read("data/clean.json")])
write("data/tokens/manifest.json", {"format": 1, "max_length": longest})
""",
    "split": """
seed = params()["split"]["seed"]
rows = read("data/clean.json")
write("data/splits.json", ["test" if number(seed, row["row_id"]) < 0.4 else "train" for row in rows])
""",
    "train": """
p = params()
threads = int(os.environ.get("TOY_THREADS", "1"))
libraries = os.environ.get("TOY_TORCH", "2.13.0")
base = number(p["train"], read("data/tokens/part-00000.json"), read("data/splits.json"), read("data/labels-of-rows.json"))
weights = [base + i + (threads - 1) * 1e-6 for i in range(4)]
body = struct.pack("<4f", *weights)
header = json.dumps({"encoder": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                     "head": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}).encode()
header += b" " * (-len(header) % 8)
Path("models/finetuned").mkdir(parents=True, exist_ok=True)
Path("models/finetuned/model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + body)
write("models/finetuned/config.json", {"id2label": dict(enumerate(read("data/labels.json")["names"]))})
fingerprint = {"threads": threads, "torch": libraries}
base_model = {"name_or_path": "toy-bert", "sha256": os.environ.get("TOY_BASE", "0123456789")}
lineage = {"format": 1, "base_model": base_model, "train": p["train"], "fingerprint": fingerprint}
write("models/finetuned/dagobert.json", lineage)
write("reports/train.json", {"threads": threads, "fingerprint": fingerprint})
""",
    "evaluate": """
body = Path("models/finetuned/model.safetensors").read_bytes()[-16:]
weights = [round(w, 3) for w in struct.unpack("<4f", body)]
rows = [i for i, side in enumerate(read("data/splits.json")) if side == "test"]
labels = read("data/labels-of-rows.json")
predictions = [{"row_id": i, "label_id": labels[i], "predicted_id": int(number(weights, i) < 0.5)} for i in rows]
accuracy = round(sum(p["label_id"] == p["predicted_id"] for p in predictions) / max(len(rows), 1), 6)
write("reports/predictions.json", predictions)
write("reports/metrics.json", {"test": {"n": len(rows), "accuracy": accuracy, "accuracy_low": max(accuracy - 0.1, 0),
      "accuracy_high": min(accuracy + 0.1, 1), "log_loss": round(weights[0] - 0.0, 2), "ece": 0.02, "p_value": body[0] / 255}})
""",
}

GRAPH = """\
stages:
  fetch:
    cmd: python3 -S code/fetch.py
    params: [data.source]
    deps: [code/fetch.py]
    outs:
      - data/raw: {persist: true}
      - data/source.json: {persist: true}
  clean:
    cmd: python3 -S code/clean.py
    params: [clean]
    deps: [data/raw, code/clean.py]
    outs:
      - data/clean.json
      - reports/data.json: {cache: false}
  encode-labels:
    cmd: python3 -S code/encode-labels.py
    deps: [data/clean.json, code/encode-labels.py]
    outs:
      - data/labels-of-rows.json
      - data/labels.json: {cache: false}
  tokenize:
    cmd: python3 -S code/tokenize.py
    params: [tokenize]
    deps: [data/clean.json, code/tokenize.py]
    outs: [data/tokens]
  split:
    cmd: python3 -S code/split.py
    params: [split]
    deps: [data/clean.json, code/split.py]
    outs: [data/splits.json]
  train:
    cmd: python3 -S code/train.py
    params: [train]
    deps: [data/tokens, data/labels-of-rows.json, data/labels.json, data/splits.json, code/train.py]
    outs:
      - models/finetuned
      - reports/train.json: {cache: false}
  evaluate:
    cmd: python3 -S code/evaluate.py
    params: [evaluate]
    deps: [models/finetuned, data/tokens, data/labels-of-rows.json, data/splits.json, code/evaluate.py]
    outs: [reports/predictions.json]
    metrics:
      - reports/metrics.json: {cache: false}
"""

PARAMS = """\
data:
  source: {source}
clean:
  lower: true
tokenize:
  max_length: 5
split:
  seed: 42
train:
  seed: 42
  learning_rate: 0.0001
evaluate:
  confidence_level: 0.95
"""

WORDS = "the film was Good and Bad or Great fun with a plot that Nobody saw".split()


def source_text(rows: int = 60, salt: int = 0) -> str:
    lines = ["text,label"]
    for i in range(rows):
        words = " ".join(WORDS[(i * 7 + salt + k * k) % len(WORDS)] for k in range(3 + i % 4))
        lines.append(f"{words},{'pos' if (i * 5 + salt) % 3 else 'neg'}")
    return "\n".join(lines) + "\n"


def run(root: Path, *command: str, **extra: str) -> str:
    done = subprocess.run(command, cwd=root, env=environment() | extra, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def dvc(root: Path, *arguments: str, **extra: str) -> str:
    return run(root, "dvc", "--wait-for-lock", *arguments, **extra)


def git(root: Path, *arguments: str) -> str:
    return run(root, "git", *arguments).strip()


def make(root: Path, source: Path) -> None:
    """A repository with one recorded run on `main`."""
    source.write_text(source_text())
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Toy")
    git(root, "config", "user.email", "toy@example.org")
    dvc(root, "init", "--quiet")
    own_site_cache(root)
    (root / "code").mkdir()
    for name, body in STAGES.items():
        (root / "code" / f"{name}.py").write_text(COMMON + body)
    (root / "dvc.yaml").write_text(GRAPH)
    (root / "params.yaml").write_text(PARAMS.format(source=json.dumps(str(source))))
    (root / ".gitignore").write_text(".dagobert/\n")
    dvc(root, "config", "core.analytics", "false")
    dvc(root, "repro", "--quiet")
    commit(root, "The first run")


def own_site_cache(root: Path) -> None:
    (root / ".dvc/config.local").write_text(f"[core]\n    site_cache_dir = {root}/.dvc/tmp/site-cache\n")


def copy(template: Path, target: Path) -> Path:
    """A copy of a repository beside a copy of its source file, independent of both."""
    shutil.copytree(template, target, symlinks=True)
    own_site_cache(target)
    return target


def commit(root: Path, message: str) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(root, "rev-parse", "HEAD")


def set_param(root: Path, section: str, name: str, value: Any) -> None:
    lines = (root / "params.yaml").read_text().splitlines()
    at = lines.index(f"{section}:")
    row = next(i for i in range(at + 1, len(lines)) if lines[i].startswith(f"  {name}:"))
    lines[row] = f"  {name}: {json.dumps(value)}"
    (root / "params.yaml").write_text("\n".join(lines) + "\n")


def repro(root: Path, **extra: str) -> None:
    dvc(root, "repro", "--quiet", **extra)


def flip(path: Path, at: int = 0, bit: int = 0) -> None:
    """Change one bit of a file in place, as a dying disk does: same size, same time."""
    facts = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def repository(root: Path) -> Repository:
    return Repository(root)


@contextmanager
def directory(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def expected(root: Path, workplace: Path) -> dict[str, bytes]:
    """What the outputs must be for the code, parameters and source of `root`: the stages run elsewhere, without DVC."""
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir(parents=True)
    shutil.copy(root / "params.yaml", workplace)
    with directory(workplace):
        for name in STAGES:
            runpy.run_path(str(root / "code" / f"{name}.py"))
    return contents(workplace)


def contents(root: Path) -> dict[str, bytes]:
    """Bytes of every output."""
    found = {}
    for folder in ("data", "models", "reports"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.name != ".gitignore":
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[1]).with_suffix(".csv"))
