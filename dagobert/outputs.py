"""Files of the working tree against what is recorded of them: outputs of stages, and data that was added by hand.

Only what is certain is named: a directory of which no listing is left is compared as a whole, not file by file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from dagobert.errors import DagobertError
from dagobert.lockfile import Entry
from dagobert.objects import is_hash, md5_bytes, md5_file, md5_listing, md5_path, relative_files
from dagobert.repository import Repository


@dataclass(frozen=True)
class Damage:
    """One file that is not what its record says. `kind`: cache, run cache, output, missing or checkpoint."""

    path: str
    kind: str
    belongs_to: str
    way_back: str
    repaired: bool = False


@dataclass(frozen=True)
class Output:
    """A recorded file or directory. `stage` makes it (None: it was added by hand); `cached`: DVC's cache keeps it."""

    repository: Repository
    entry: Entry
    stage: str | None
    cached: bool

    @property
    def maker(self) -> str:
        """Who made it, for a message."""
        return f"{self.stage} made" if self.stage else "was added"

    @cached_property
    def files(self) -> list[str]:
        """Files that lie there now, below it; "" for a file."""
        path = self.repository.root / self.entry.path
        return relative_files(path) if path.is_dir() else [""] if path.exists() else []

    @cached_property
    def in_git(self) -> bool:
        """Whether git has exactly the recorded bytes, so that it can give them back."""
        listing = self._listing_in_git
        return (md5_listing(listing) if self.entry.is_directory else listing.get("")) == self.entry.md5

    @cached_property
    def listing(self) -> dict[str, str] | None:
        """What should lie there: {file: MD5}; None where no listing of the directory is left."""
        if not self.entry.is_directory:
            return {"": self.entry.md5}
        if not self.cached:
            return self._listing_in_git if self.in_git else None
        try:
            return self.repository.cache.listing(self.entry.md5)
        except DagobertError:
            return None

    @cached_property
    def _listing_in_git(self) -> dict[str, str]:
        path = self.entry.path
        names = [name for name in self.repository.git("ls-files", "-z", "--", f":(literal){path}").split("\0") if name]
        contents = self.repository.read_many(f":{name}" for name in names) if names else []
        return {
            name[len(path) + 1 :]: md5_bytes(content)
            for name, content in zip(names, contents, strict=True)
            if content is not None
        }

    @cached_property
    def way_back(self) -> str:
        """How to have the recorded bytes in the working tree again."""
        path, faults = self.entry.path, self.repository.cache.faults(self.entry) if self.cached else {}
        if not self.cached and self.in_git:
            return f"git restore {path}"
        ways = []
        if self.cached and not faults:
            ways.append(f"dvc checkout --force {path}")
        elif self.cached:
            aside = "dagobert fsck --repair, then " if "damaged" in faults.values() else ""
            ways += [f"{aside}dvc pull --force {path} (remote {name})" for name in list(self.repository.remotes)[:1]]
        if self.stage and not (self.cached and not faults):
            ways.append(f"dvc repro --force --single-item {self.stage}")
        if not self.stage:
            ways.append(f"dvc add {path} if the change is meant")
        return "; or ".join(ways)

    @property
    def way_to_get(self) -> str:
        """How to get what is neither in the cache nor in the working tree."""
        ways = [f"dvc pull {self.entry.path} (remote {name})" for name in list(self.repository.remotes)[:1] if self.cached]
        ways += [f"dvc repro {self.stage}"] if self.stage else []
        return "; or ".join(ways) or "ask who recorded it for a copy: no remote is set and no stage makes it"


def outputs_here(repository: Repository) -> Iterator[Output]:
    """Everything that `dvc.lock` and the `.dvc` files of the working tree record, but what lies in a cloud."""
    lock, uncached = repository.lock_here(), repository.uncached_here()
    made = [(record.name, out) for record in (lock.stages.values() if lock else ()) for out in record.outs]
    for stage, entry in (*made, *((None, entry) for entry in repository.data_files_here())):
        if is_hash(entry.md5) and "://" not in entry.path:
            yield Output(repository, entry, stage, entry.path not in uncached)


def damages(output: Output, damaged: Collection[str]) -> Iterator[Damage]:
    """What is wrong with an output in the working tree, and what of it is nowhere.

    Args:
        damaged: hashes of the objects that are known to be damaged, and named elsewhere.
    """
    path = output.repository.root / output.entry.path
    if path.exists() and (output.listing is None or path.is_dir() != output.entry.is_directory):
        yield from _as_a_whole(output)
        return
    gone = _nowhere(output, damaged)
    if path.exists():
        yield from (_file_damage(output, name) for name in _differing(output) if name not in gone)
    if gone:
        yield _missing(output, gone)


def _as_a_whole(output: Output) -> Iterator[Damage]:
    path = output.entry.path
    if md5_path(output.repository.root / path) == output.entry.md5:
        return
    belongs = f"{path}: is not what {output.maker} (edited, or damaged)"
    if output.listing is None:
        state = (
            f"its listing is {output.repository.cache.state(output.entry.md5)} in the cache"
            if output.cached
            else "it has no listing"
        )
        belongs += f"; {state}, so which of its {len(output.files)} files cannot be told"
    yield Damage(path, "output", belongs, output.way_back)


def _differing(output: Output) -> list[str]:
    expected, root = output.listing or {}, output.repository.root / output.entry.path
    same = {name for name in output.files if name in expected and md5_file(root / name if name else root) == expected[name]}
    return sorted({*output.files, *expected} - same)


def _file_damage(output: Output, name: str) -> Damage:
    what = (
        "is not in what"
        if name not in (output.listing or {})
        else "is not what"
        if name in output.files
        else "is missing from what"
    )
    path = output.entry.path
    belongs = f"{path}: {what} {output.maker} (edited, or damaged)"
    return Damage(f"{path}/{name}" if name else path, "output", belongs, output.way_back)


def _nowhere(output: Output, damaged: Collection[str]) -> list[str]:
    """Files of an output that are neither in the working tree nor in the cache, nor in git."""
    if not output.cached and output.in_git:
        return []
    if output.listing is None:  # not in the working tree: nothing else is known of what it held
        return [] if output.entry.md5 in damaged else ["its listing"]
    cache = output.repository.cache
    there = {*damaged, *(md5 for md5 in output.listing.values() if output.cached and cache.path(md5).exists())}
    return [name for name, md5 in sorted(output.listing.items()) if name not in output.files and md5 not in there]


def _missing(output: Output, gone: list[str]) -> Damage:
    path, listing = output.entry.path, output.listing
    what = (
        "it" if gone == [""] else "its listing" if listing is None else f"{len(gone)} of its {len(listing)} files ({gone[0]} …)"
    )
    where = "the cache" if output.cached else "git"
    belongs = f"{path}: {what}, which {output.maker}, is neither in {where} nor in the working tree"
    return Damage(path, "missing", belongs, output.way_to_get)
