"""Checkpoints of a training run: written whole or not at all, verified before use, two kept.

A checkpoint is a directory `step-00000123` with `tensors.safetensors`, `state.json` and, written last, `manifest.json` with
the SHA-256 of both. It is filled under a temporary name, flushed to the disk and renamed. `latest` takes the newest one
whose files match its manifest and says which it passed over. They live outside DVC's outputs, keyed by what the run is made
from: DVC deletes outputs before a stage runs, and another run's checkpoint must never be taken up.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dagobert import files

FORMAT = 1
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def to_bytes(self) -> bytes:
        """As it goes to other nodes: length of the state, state, tensors."""
        from safetensors.torch import save

        state = json.dumps({"step": self.step, "state": self.state}).encode()
        return struct.pack("<Q", len(state)) + state + save(self.tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """The inverse."""
        from safetensors.torch import load

        (size,) = struct.unpack_from("<Q", data)
        head = json.loads(data[8 : 8 + size])
        return cls(head["step"], load(data[8 + size :]), head["state"])


class Checkpoints:
    """The checkpoints of one run, in a directory of its own.

    Args:
        directory: where they lie.
        keep: how many to keep.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.directory = directory
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove the oldest beyond `keep`.

        Raises:
            StorageError: the disk is full; the checkpoints before are untouched.
        """
        from safetensors.torch import save_file

        path = self.directory / f"step-{checkpoint.step:08d}"
        self._sweep()
        with files.atomic_directory(path) as temporary:
            save_file({name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}, temporary / _TENSORS)
            (temporary / _STATE).write_text(json.dumps(checkpoint.state), encoding="utf-8")
            manifest = {
                "format": FORMAT,
                "step": checkpoint.step,
                "sha256": {name: files.sha256_file(temporary / name) for name in (_TENSORS, _STATE)},
            }
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for old in self.found()[: -self.keep]:
            shutil.rmtree(old)
        return path

    def found(self) -> list[Path]:
        """Directories of checkpoints, oldest first, whether usable or not."""
        if not self.directory.is_dir():
            return []
        paths = [p for p in self.directory.iterdir() if p.is_dir() and _NAME.fullmatch(p.name)]
        return sorted(paths, key=lambda p: int(p.name.removeprefix("step-")))

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest usable checkpoint, and what is wrong with each newer one."""
        problems: list[str] = []
        for path in reversed(self.found()):
            try:
                return _read(path), problems
            except (OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{path}: {error}")
        return None, problems

    def clear(self) -> None:
        """Remove all: the run is over."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed saves left behind."""
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if path.name.startswith("."):
                    shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    manifest_path = path / _MANIFEST
    if not manifest_path.is_file():
        raise ValueError("has no manifest, so it was never finished")
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise ValueError(f"has format {manifest['format']!r}, this Dagobert reads {FORMAT}")
    content: dict[str, bytes] = {}
    for name in (_TENSORS, _STATE):
        content[name] = (path / name).read_bytes()
        if hashlib.sha256(content[name]).hexdigest() != manifest["sha256"][name]:
            raise ValueError(f"{name} does not match its SHA-256: it is damaged")
    if manifest["step"] != int(path.name.removeprefix("step-")):
        raise ValueError("is of another step than its name says")
    try:
        tensors = load(content[_TENSORS])
    except SafetensorError as error:
        raise ValueError(f"{_TENSORS} cannot be read: {error}") from error
    return Checkpoint(manifest["step"], tensors, json.loads(content[_STATE]))


def run_key(parts: dict[str, Any]) -> str:
    """Name of a run: a hash of everything its result depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def prune(root: Path, current: str, keep: int = 3) -> None:
    """Remove the checkpoints of other runs but for the `keep` written last."""
    if not root.is_dir():
        return
    others = sorted((p for p in root.iterdir() if p.is_dir() and p.name != current), key=lambda p: p.stat().st_mtime)
    for path in others[: len(others) - keep] if len(others) > keep else []:
        shutil.rmtree(path, ignore_errors=True)
