"""Find every damaged byte: DVC's cache, its run cache, and what lies in the working tree, each file hashed against its record.

Nothing else notices: DVC trusts an object that has the right name, and `checkout` copies a flipped byte into the working tree.
A damaged object is named with what it belongs to and how to get it back; `--repair` sets it aside and puts a whole copy in its
place where the working tree still has one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert import events, files
from dagobert.errors import DagobertError
from dagobert.lockfile import Entry
from dagobert.objects import md5_file, md5_path, relative_files, total_size
from dagobert.references import Reference, references
from dagobert.repository import Repository

ASIDE = Path(".dagobert/damaged")


@dataclass(frozen=True)
class Damage:
    """One file that is not what its record says. `kind`: cache, run cache, output or checkpoint."""

    path: str
    kind: str
    belongs_to: str
    way_back: str
    repaired: bool = False


@dataclass(frozen=True)
class Examination:
    """What was looked at, and what was found."""

    files: int
    bytes: int
    damages: tuple[Damage, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"files": self.files, "bytes": self.bytes, "damages": [vars(damage) for damage in self.damages]}


def fsck(repository: Repository, *, repair: bool = False) -> Examination:
    """Hash everything that has a recorded hash.

    Args:
        repair: set damaged cache objects aside, and restore those of which the working tree has a whole copy.
    """
    paths = [repository.cache.path(md5) for md5 in repository.cache.objects()]
    belongs = references(repository)
    damages: list[Damage] = []
    seen = size = 0
    with events.progress("hashing", len(paths), unit="objects") as bar:
        for path in paths:
            md5 = path.parent.name + path.name
            seen, size = seen + 1, size + path.stat().st_size
            if md5_file(path) != md5.removesuffix(".dir"):
                damages.append(_cache_damage(repository, path, md5, belongs.get(md5), repair))
            bar.update()
    for path in _files(repository.cache.directory / "runs"):
        seen, size = seen + 1, size + path.stat().st_size
        if not run_cache_entry_is_whole(path):
            if repair:
                set_aside(repository, path)
            damages.append(
                Damage(
                    str(path), "run cache", "a run DVC remembers", "delete it: DVC will run that stage again when asked", repair
                )
            )
    lock = repository.lock_here()
    if lock is not None:
        for stage, entry in ((record.name, out) for record in lock.stages.values() for out in record.outs):
            count, amount, found = _output_damages(repository, stage, entry)
            seen, size = seen + count, size + amount
            damages += found
    for folder in sorted((repository.root / ".dagobert/checkpoints").glob("*/*/")):
        if (problem := checkpoint_problem(folder)) is not None:
            way = "nothing to do: training goes on from the checkpoint before it"
            damages.append(Damage(_shown(repository, folder), "checkpoint", problem, way))
        contents = list(_files(folder))
        seen, size = seen + len(contents), size + total_size(contents)
    return Examination(seen, size, tuple(damages))


def set_aside(repository: Repository, path: Path) -> None:
    """Move a damaged file out of the way, so that DVC sees that the object is missing and gets or makes it again."""
    target = aside(repository, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)


def aside(repository: Repository, path: Path) -> Path:
    """Where a damaged file of the cache is set aside."""
    return repository.root / ASIDE / f"{path.parent.name}{path.name}"


def checkpoint_problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint of training, by its manifest; None: nothing. Needs no torch."""
    try:
        manifest = files.read_json(folder / "manifest.json")
        if manifest["format"] != 1 or manifest["step"] != int(folder.name.removeprefix("step-")):
            return "its manifest is not that of this checkpoint"
        listed = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
        wrong = [name for name, digest in listed.items() if files.sha256_file(folder / name) != digest]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    wrong += [path.name for path in _files(folder) if path.name not in {*listed, "manifest.json"}]
    return f"{', '.join(wrong)} is not what its manifest says" if wrong else None


def run_cache_entry_is_whole(path: Path) -> bool:
    """Whether a run cache entry has the SHA-256 its name says (of its values as JSON, sizes and counts left out)."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError):
        return False
    return hashlib.sha256(json.dumps(_without_sizes(values), sort_keys=True).encode()).hexdigest() == path.name


def _without_sizes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_sizes(item) for name, item in value.items() if name not in ("size", "nfiles")}
    return [_without_sizes(item) for item in value] if isinstance(value, list) else value


def _cache_damage(repository: Repository, path: Path, md5: str, owner: Reference | None, repair: bool) -> Damage:
    shown = _shown(repository, path)
    if owner is None:
        if repair:
            set_aside(repository, path)
        return Damage(shown, "cache", "nothing that is recorded anywhere", "delete it: nothing needs it", repair)
    belongs = f"{owner.paths[0]} at {', '.join(owner.places[:4])}" + (" and others" if len(owner.places) > 4 else "")
    copy = next((repository.root / name for name in owner.paths if _is(repository.root / name, md5)), None)
    ways = []
    if copy is not None:
        ways.append(f"{copy.relative_to(repository.root)} in the working tree is whole: dagobert fsck --repair copies it back")
    if repository.remotes:
        ways.append(f"dagobert fsck --repair, then dvc fetch (remote {next(iter(repository.remotes))})")
    if owner.stages:
        ways.append(
            f"dagobert fsck --repair, then dvc repro in a checkout of {owner.places[0]} makes it again ({owner.stages[0]})"
        )
    way = "; or ".join(ways) or "ask who recorded it for a copy: no remote is set and no stage makes it"
    if repair:
        set_aside(repository, path)
        if copy is not None:
            shutil.copyfile(copy, path)
            path.chmod(0o444)
    return Damage(shown, "cache", belongs, way, repair and copy is not None)


def _is(path: Path, md5: str) -> bool:
    return path.is_file() and md5_file(path) == md5


def _output_damages(repository: Repository, stage: str, entry: Entry) -> tuple[int, int, list[Damage]]:
    """Files of one output of the working tree that are not what `dvc.lock` says: (files, bytes, damages)."""
    path = repository.root / entry.path
    if not path.exists():
        return 0, 0, []  # not checked out
    expected = {"": entry.md5}
    present = {"": path}
    if entry.is_directory:
        present = {name: path / name for name in relative_files(path)}
        try:
            expected = repository.cache.listing(entry.md5)
        except DagobertError:  # no listing to compare with file by file: an output that is not cached, say
            expected = {} if md5_path(path) != entry.md5 else {name: md5_file(file) for name, file in present.items()}
    damages = []
    for name in sorted(present.keys() | expected.keys()):
        file = path / name if name else path
        if name in present and name in expected and md5_file(file) == expected[name]:
            continue
        what = (
            "is not what"
            if name in present and name in expected
            else ("is not in what" if name in present else "is missing from what")
        )
        way = f"dvc checkout --force {entry.path}"
        if repository.cache.faults(entry):
            way = f"dvc repro --force --single-item {stage}"
        belongs = f"{entry.path}: {what} {stage} made (edited, or damaged)"
        damages.append(Damage(_shown(repository, file), "output", belongs, way))
    return len(present), sum(file.stat().st_size for file in present.values()), damages


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _shown(repository: Repository, path: Path) -> str:
    return path.relative_to(repository.root).as_posix() if path.is_relative_to(repository.root) else str(path)
