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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert import events, files
from dagobert.objects import md5_file, total_size
from dagobert.outputs import Damage, outputs_here
from dagobert.outputs import damages as output_damages
from dagobert.references import Reference, references
from dagobert.repository import Repository

ASIDE = Path(".dagobert/damaged")


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
    damages: list[Damage] = []
    sizes: dict[str, int] = {}  # of the whole objects
    belongs, objects, seen, size = references(repository), set(repository.cache.objects()), 0, 0
    with events.progress("hashing", len(objects), unit="objects") as bar:
        for md5 in sorted(objects):
            path = repository.cache.path(md5)
            seen, size = seen + 1, size + path.stat().st_size
            if md5_file(path) == md5.removesuffix(".dir"):
                sizes[md5] = path.stat().st_size
            else:
                damages.append(_cache_damage(repository, path, md5, belongs.get(md5), repair))
            bar.update()
    known = _Sizes(repository, sizes)
    for path in _files(repository.cache.directory / "runs"):
        seen, size = seen + 1, size + path.stat().st_size
        if not run_cache_entry_is_whole(path, known):
            if repair:
                set_aside(repository, path)
            way = "delete it: DVC will run that stage again when asked"
            damages.append(Damage(_shown(repository, path), "run cache", "a run DVC remembers", way, repair))
    for output in outputs_here(repository):
        seen += len(output.files)
        place = repository.root / output.entry.path
        size += total_size(place / name if name else place for name in output.files)
        damages += output_damages(output, objects - sizes.keys())
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


@dataclass
class _Sizes:
    """Sizes by hash, as far as they are known: of whole cache objects, and of files of the working tree."""

    repository: Repository
    objects: dict[str, int]
    here: dict[str, tuple[str, int]] = field(default_factory=dict)

    def of(self, item: dict[str, Any]) -> dict[str, int]:
        """What is known of the size of one entry of the run cache, and of a directory's number of files."""
        md5, path = str(item.get("md5")), str(item.get("path"))
        if md5.endswith(".dir") and md5 in self.objects:
            inner = list(self.repository.cache.listing(md5).values())
            size = {"size": sum(map(self.objects.__getitem__, inner))} if all(each in self.objects for each in inner) else {}
            return {"nfiles": len(inner), **size}
        if md5 in self.objects:
            return {"size": self.objects[md5]}
        file = self.repository.root / path
        if path not in self.here:
            self.here[path] = (md5_file(file), file.stat().st_size) if file.is_file() else ("", 0)
        return {"size": self.here[path][1]} if self.here[path][0] == md5 else {}


def run_cache_entry_is_whole(path: Path, sizes: _Sizes) -> bool:
    """Whether a run cache entry has the SHA-256 its name says (of its values as JSON, sizes and counts left out).

    Sizes and counts must be numbers, and true where the size is known: DVC hands on those of outputs to `dvc.lock`.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError, ValueError):
        return False
    if hashlib.sha256(json.dumps(_without_sizes(values), sort_keys=True).encode()).hexdigest() != path.name:
        return False
    items = [item for kind in ("deps", "outs") for item in values.get(kind, ())]
    for item in items:
        written = {name: item[name] for name in ("size", "nfiles") if name in item}
        known = sizes.of(item)
        if any(type(value) is not int or known.get(name, value) != value for name, value in written.items()):
            return False
    return True


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


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _shown(repository: Repository, path: Path) -> str:
    return path.relative_to(repository.root).as_posix() if path.is_relative_to(repository.root) else str(path)
