"""Run a past experiment again and say whether it came out the same. The working tree is never touched.

A clone at the revision gets the recorded source data, every byte hashed on the way, and a DVC cache of its own that is empty:
outputs are computed, never checked out, and a damaged object of the shared cache cannot get into the comparison (DVC links an
output to the object of its hash when there is one). Outputs are hashed here, not read from DVC's state.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dagobert import events, files
from dagobert.differences import difference
from dagobert.doctor import differences
from dagobert.errors import DamagedObjectError, RepositoryError
from dagobert.lockfile import Entry, Lock, StageFlags, StageRecord, flatten
from dagobert.objects import md5_path, relative_files
from dagobert.record import record_faults
from dagobert.recorded import Recorded
from dagobert.repository import Repository, stream
from dagobert.stages import paths
from dagobert.verdicts import BLAMED, Fault, FileResult, MetricResult, Report, StageResult, compare_metrics, differing, judge

REPORTS = Path(".dagobert/reproductions")
LINEAGE = "dagobert.json"
TRAIN_REPORT = paths.TRAIN_REPORT.as_posix()  # in git, so its fingerprint can be read where the model is not
REQUIREMENTS = "requirements.lock"
_RUNNING = re.compile(r"Running stage '([^']+)'")
_FAILED = re.compile(r"failed to reproduce '([^']+)'")
_LAST_WORDS = 12  # lines of a failed stage that are shown
_WORDS_KEPT = 200
_DIFFERENCES = 8  # files of one output whose difference is told


@dataclass(frozen=True)
class Options:
    """What a user may ask of `reproduce`.

    Attributes:
        fetch: get the data from its source again, although the recorded snapshot is in the cache.
        pull: get what is missing or damaged from the DVC remote: source data, and recorded outputs that came out otherwise.
        keep: leave the clone where it is.
        tolerances: absolute, by the last part of a metric's name.
    """

    fetch: bool = False
    pull: bool = False
    keep: bool = False
    tolerances: dict[str, float] = field(default_factory=dict)


@dataclass
class _Work:
    """What is known of the revision, and what is found on the way."""

    repository: Repository
    revision: str
    commit: str
    lock: Lock
    graph: dict[str, StageFlags]
    faults: list[Fault]
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    gaps: dict[str, list[str]] = field(default_factory=dict)  # source stage → what of its snapshot is missing or damaged

    @property
    def uncached(self) -> frozenset[str]:
        """Outputs that git keeps, not DVC's cache."""
        return frozenset().union(*(flags.uncached for flags in self.graph.values()))


def reproduce(repository: Repository, revision: str, options: Options | None = None) -> Report:
    """Run a revision again and judge the result. Only a revision that does not exist is an error; the rest is in the report.

    Raises:
        RepositoryError: no commit, tag, branch or experiment is called `revision`.
    """
    options = options or Options()
    commit = repository.resolve(revision)
    try:
        work = _Work(
            repository, revision, commit, repository.lock(commit), repository.graph(commit), record_faults(repository, commit)
        )
    except RepositoryError as error:
        return Report(revision, commit, "cannot run", missing=(str(error),))
    events.say(f"{revision} is commit {commit[:10]}, {len(work.lock.stages)} stages recorded")
    work.missing += _unrecorded(work)
    packages = environment_differences(repository, commit)
    inputs, sources = _inputs(work, options)
    report = Report(revision, commit, "cannot run", environment=packages, faults=tuple(work.faults))
    if work.missing:
        return replace(report, missing=tuple(work.missing), notes=tuple(work.notes))
    with repository.clone(commit, share_cache=False, keep=options.keep) as clone:
        if options.keep:
            work.notes.append(f"the clone is kept in {clone.root}")
        try:
            for entry in inputs:
                repository.cache.restore(entry, clone.root / entry.path)
        except DamagedObjectError as error:
            return replace(report, missing=(str(error),), notes=tuple(work.notes))
        stages = _run(work, clone, sources)
        return _report(work, report, clone, stages, options)


def _unrecorded(work: _Work) -> Iterator[str]:
    for name in work.graph:
        if not any(recorded.partition("@")[0] == name for recorded in work.lock.stages):
            yield f"stage {name} has no record in dvc.lock at {work.commit[:10]}: it had not run when this was committed"
    for fault in work.faults:
        if fault.kind == "missing":
            yield f"{fault.text}: it was never committed. Whoever made the record may still have it"


def _inputs(work: _Work, options: Options) -> tuple[list[Entry], list[str]]:
    """Source data that is taken from the cache after hashing it, and the stages it stands for.

    A stage whose outputs are all persisted keeps a snapshot of something outside (`fetch`); the snapshot is the experiment's
    input. Where it is missing or damaged, the stage is run, and what it gets is compared like any output.
    """
    taken: list[Entry] = []
    sources: list[str] = []
    for name, flags in work.graph.items():
        stage = work.lock.stages.get(name)
        if stage is None or not stage.outs or options.fetch or not all(out.path in flags.persisted for out in stage.outs):
            continue
        faults = [fault for out in stage.outs for fault in _checked(work, out, options)]
        if faults:
            work.gaps[name] = [f"{fault}; {name} is run again instead" for fault in faults]
            work.notes += work.gaps[name]
        else:
            taken += stage.outs
            sources.append(name)
    for entry in work.repository.data_files(work.commit):
        work.missing += _checked(work, entry, options)
        taken.append(entry)
    if taken and not work.missing:
        events.say(f"source data: {', '.join(entry.path for entry in taken)}: every byte as recorded")
    return taken, sources


def _checked(work: _Work, entry: Entry, options: Options) -> list[str]:
    faults = _faults(work.repository, entry)
    if faults and options.pull:
        _pull(work, [entry])
        faults = _faults(work.repository, entry)
    where = ", ".join(f"{name} ({url})" for name, url in work.repository.remotes.items())
    hint = f"it may be had from the remote {where}: --pull" if where else "no DVC remote is set: ask who made it for a copy"
    return [f"{path} ({md5[:10]}) is {state} in the cache; {hint}" for path, state, md5 in faults]


def _faults(repository: Repository, entry: Entry) -> list[tuple[str, str, str]]:
    """(path, missing or damaged, hash) of what is wrong with an entry in the cache."""
    listing = (
        {} if not entry.is_directory or repository.cache.state(entry.md5) != "whole" else repository.cache.listing(entry.md5)
    )
    states = repository.cache.faults(entry)
    return [(path, state, listing.get(path[len(entry.path) + 1 :], entry.md5)) for path, state in states.items()]


def _pull(work: _Work, entries: list[Entry]) -> None:
    """Get entries from the remote into the shared cache."""
    from dagobert.restoring import pull

    if (failure := pull(work.repository, work.commit, entries)) is not None:
        work.notes.append(f"pulling {', '.join(entry.path for entry in entries)} failed: {failure}")


def _pull_recorded(work: _Work, stages: tuple[StageResult, ...]) -> None:
    """Get the recorded outputs that came out otherwise and are not whole here: else nobody could say how they differ."""
    outs = work.lock.outs
    other = [outs[file.path] for stage in stages for file in stage.files if not file.same and file.path not in work.uncached]
    if wanted := [entry for entry in other if _faults(work.repository, entry)]:
        events.say(f"pulling what was recorded, to compare with: {', '.join(entry.path for entry in wanted)}")
        _pull(work, wanted)


def environment_differences(repository: Repository, commit: str) -> dict[str, tuple[str, str | None]]:
    """Packages that were locked at a commit and are installed here in another version, or not: {name: (locked, installed)}."""
    return differences((repository.read(commit, REQUIREMENTS) or b"").decode())


def _run(work: _Work, clone: Repository, sources: list[str]) -> tuple[StageResult, ...]:
    """Run every stage that is not a source, in order; compare each one's outputs as soon as it is done."""
    names = [name for name in work.lock.order() if name.partition("@")[0] in work.graph]
    results = {name: _compare(work.lock.stages[name], clone, "input") for name in sources}
    todo = [name for name in names if name not in sources]
    watch = _Watch(lambda name, seconds: results.__setitem__(name, _finished(work, clone, name, seconds)))
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", "--force", "--no-run-cache", "--no-commit", *todo]
    code = stream(command, clone.root, watch.line) if todo else 0
    failed = (watch.failed or watch.current or todo[0]) if code != 0 else None
    watch.end(failed=failed is not None and failed == watch.current)
    if failed is not None:
        results[failed] = StageResult(failed, "failed", watch.seconds, words=tuple(watch.words[-_LAST_WORDS:]))
    return tuple(results.get(name) or StageResult(name, "not run") for name in names)


class _Watch:
    """Reads DVC's output: which stage runs, and what it says."""

    def __init__(self, on_done: Callable[[str, float], None]) -> None:
        self.current: str | None = None
        self.failed: str | None = None  # the stage that DVC says failed: it may not have come as far as running
        self.words: list[str] = []
        self._on_done = on_done
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the current stage has been running."""
        return time.monotonic() - self._started

    def line(self, line: str) -> None:
        """One line of DVC's output."""
        if match := _RUNNING.match(line):
            self.end(failed=False)
            self.current, self._started, self.words = match[1], time.monotonic(), []
        elif line:
            if match := _FAILED.search(line):
                self.failed = match[1]
            self.words = [*self.words[-_WORDS_KEPT:], line]

    def end(self, *, failed: bool) -> None:
        """The current stage has ended."""
        if self.current is not None and not failed:
            self._on_done(self.current, self.seconds)


def _finished(work: _Work, clone: Repository, name: str, seconds: float) -> StageResult:
    result = _compare(work.lock.stages[name], clone, None)
    same = sum(file.same for file in result.files)
    events.say(f"{name}: {result.outcome} ({same} of {len(result.files)} outputs as recorded) in {events.duration(seconds)}")
    return replace(result, seconds=round(seconds, 3))


def _compare(stage: StageRecord, clone: Repository, outcome: Any) -> StageResult:
    results = []
    for out in stage.outs:
        path = clone.root / out.path
        results.append(FileResult(out.path, out.md5, md5_path(path) if path.exists() else None))
    same = all(result.same for result in results)
    return StageResult(stage.name, outcome or ("identical" if same else "different"), None, tuple(results))


def _report(work: _Work, report: Report, clone: Repository, stages: tuple[StageResult, ...], options: Options) -> Report:
    if options.pull and work.repository.remotes:
        _pull_recorded(work, stages)
    hint = " Try --pull." if work.repository.remotes and not options.pull else ""
    recorded = Recorded(work.repository, work.commit, clone.root.with_name(f"{clone.root.name}.recorded"))
    try:
        told = tuple(replace(stage, files=tuple(_how(recorded, clone, file, hint) for file in stage.files)) for stage in stages)
        before, after = _recorded_note(recorded, "fingerprint"), _note_of(clone.root, work.lock, "fingerprint")
        fingerprint = {} if before is None or after is None else differing(flatten(before), flatten(after))
        if before is None and any(stage.outcome == "different" for stage in stages):
            where = f"{TRAIN_REPORT} at {work.commit[:10]} holds none, and the recorded model is not in the cache"
            work.notes.append(f"the recorded fingerprint cannot be read: {where}.{hint}")
        report = replace(report, faults=(*report.faults, *_base_model(recorded, clone, told)))
        metrics = tuple(_metrics(work, recorded, clone, options))
        training = _training(work.lock)
        verdict, first = judge(told, training, metrics, fingerprint, report.faults)
        work.notes += _damage(work)
        causes = tuple(_causes(work, report, first, fingerprint, training)) if verdict != "identical" else ()
    finally:
        recorded.remove()
    return replace(
        report,
        verdict=verdict,
        stages=told,
        metrics=metrics,
        fingerprint=fingerprint,
        first=first,
        causes=causes,
        missing=tuple(work.gaps.get(first or "", ())) if verdict == "cannot run" else (),
        notes=tuple(work.notes),
    )


def _how(recorded: Recorded, clone: Repository, file: FileResult, hint: str) -> FileResult:
    if file.same:
        return file
    if file.now is None:
        return replace(file, how=("was not made",))
    before, after = recorded.path(file.path), clone.root / file.path
    if before is None:
        return replace(file, how=(f"how it differs cannot be told: {recorded.problem(file.path)}{hint}",))
    if not after.is_dir():
        return replace(file, how=tuple(difference(before, after)))
    return replace(file, how=tuple(_directory_difference(before, after)))


def _directory_difference(before: Path, after: Path) -> Iterator[str]:
    old, new = relative_files(before), relative_files(after)
    for verb, names in (("is gone", [n for n in old if n not in new]), ("is new", [n for n in new if n not in old])):
        if names:
            yield f"{names[0]} {verb}" + (f", and {len(names) - 1} more" if len(names) > 1 else "")
    differing_files = 0
    for name in old:
        if name in new and (found := difference(before / name, after / name)):
            differing_files += 1
            if differing_files <= _DIFFERENCES:
                yield f"{name}: {'; '.join(found)}"
    if differing_files > _DIFFERENCES:
        yield f"{differing_files - _DIFFERENCES} more files differ"


def _written_down(lock: Lock) -> list[str]:
    """Outputs of `train` that may hold its notes: its report first, then the model (all that older records have)."""
    made = lock.stages["train"].outs if "train" in lock.stages else ()
    names = [out.path for out in made if out.path.endswith(".json") or out.is_directory]
    return sorted(names, key=lambda name: name != TRAIN_REPORT)


def _note_in(path: Path, name: str) -> dict[str, Any] | None:
    file = path / LINEAGE if path.is_dir() else path
    if not file.is_file():
        return None
    try:
        values = files.read_json(file)
    except ValueError:
        return None
    found = values.get(name) if isinstance(values, dict) else None
    return found if isinstance(found, dict) else None


def _recorded_note(recorded: Recorded, name: str) -> dict[str, Any] | None:
    """What the recorded bytes depended on (`fingerprint`, `base_model`), as far as it was written down and can be read."""
    for place in _written_down(recorded.lock):
        if (path := recorded.path(place)) is not None and (found := _note_in(path, name)) is not None:
            return found
    return None


def _note_of(root: Path, lock: Lock, name: str) -> dict[str, Any] | None:
    return next((found for place in _written_down(lock) if (found := _note_in(root / place, name)) is not None), None)


def _base_model(recorded: Recorded, clone: Repository, stages: tuple[StageResult, ...]) -> Iterator[Fault]:
    """A checkpoint that is not the one the record was trained from, though it goes by the same name."""
    if not any(stage.name == "train" and stage.outcome == "different" for stage in stages):
        return
    before, after = _recorded_note(recorded, "base_model"), _note_of(clone.root, recorded.lock, "base_model")
    then, now = (str((note or {}).get("sha256", "")) for note in (before, after))
    if before and after and then != now:
        what = f"the base model {after.get('name_or_path')} is another one ({now[:8]})"
        yield Fault("train", "base model", f"train: {what} than the record was trained from ({then[:8]})")


def _training(lock: Lock) -> frozenset[str]:
    """The stage whose bytes depend on the machine, and all it feeds."""
    return frozenset(lock.downstream("train")) if "train" in lock.stages else frozenset()


def _metrics(work: _Work, recorded: Recorded, clone: Repository, options: Options) -> Iterator[MetricResult]:
    for name in (path for flags in work.graph.values() for path in flags.metrics):
        before, after = recorded.path(name), clone.root / name
        if before is None:
            work.notes.append(f"the recorded figures cannot be compared: {recorded.problem(name)}")
        else:
            now = flatten(files.read_json(after)) if after.is_file() else None
            yield from compare_metrics(flatten(files.read_json(before)), now, options.tolerances)


def _damage(work: _Work) -> Iterator[str]:
    """Recorded outputs whose object in the cache is damaged: the run did not need them, but their owner wants to know."""
    told = {out.path for name in work.gaps for out in work.lock.stages[name].outs}
    for entry in work.lock.outs.values():
        if entry.path not in work.uncached | told:
            for path, state, md5 in _faults(work.repository, entry):
                if state == "damaged":
                    yield f"the cache's copy of {path} ({md5[:10]}) is damaged; this run did not use it. See `dagobert fsck`."


def _causes(
    work: _Work, report: Report, first: str | None, fingerprint: dict[str, tuple[Any, Any]], training: frozenset[str]
) -> Iterator[str]:
    """Why the first stage differs, likeliest first."""
    if first is None:
        return
    feeding = {name for name in work.lock.stages if first in work.lock.downstream(name)}
    told: list[str] = []
    for fault in report.faults:
        if (fault.stage in feeding and fault.kind != "file") or fault.kind == "base model":
            told.append(fault.text)
            yield fault.text
    machine = first in training and bool(fingerprint)
    if machine:
        shown = [f"{name} was {before}, is {after}" for name, (before, after) in fingerprint.items()]
        yield f"the fingerprint differs: {'; '.join(shown[:6])}" + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
    if report.environment:
        shown = [f"{name} {then} then, {now or 'missing'} now" for name, (then, now) in report.environment.items()]
        yield f"other packages than were locked: {', '.join(shown[:6])}" + (
            f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        )
    for fault in report.faults:
        if machine and fault.kind in BLAMED and fault.text not in told:
            yield f"no tolerance for another machine here: {fault.text}"
    if not told and not machine and not report.environment:
        outside = "the source gives other bytes today, or " if work.graph[first.partition("@")[0]].persisted else ""
        yield (
            f"nothing that was recorded explains it: commit, parameters, inputs and packages are the same. {outside}"
            f"{first} depends on something that is not tracked. Run it twice: dagobert reproduce {report.revision} --keep"
        )
