"""Which model is in production: git tags in GTO's convention, a gate before them, a history, and a way back.

    model@v0.0.3            the third version that was ever promoted, on its experiment's commit
    model#production#2      the second time that something was put in production

Tags are the registry: they are pushed and fetched with git, `gto show` and DVC Studio read them, they keep an experiment's
commit from being collected, and nothing is ever moved or deleted: a rollback is one more tag. The tag's message holds what the
gate said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagobert import restoring
from dagobert.errors import RepositoryError
from dagobert.objects import md5_path
from dagobert.record import record_faults
from dagobert.recorded import recorded_outputs
from dagobert.repository import ARTIFACT, Repository

if TYPE_CHECKING:
    from dagobert.side_by_side import Result

MODEL, DATA_REPORT = "models/finetuned", "reports/data.json"
MODELS = Path(".dagobert/models")
ALPHA = 0.05  # chance that the gate lets an equally good model pass as a better one
ECE_SLACK = 0.01  # a calibration error this much higher counts as not worse: bins of a test of 1,000 rows move by as much
_VERSION = re.compile(rf"refs/tags/{ARTIFACT}@v(\d+)\.(\d+)\.(\d+)")
_STAGE = re.compile(rf"refs/tags/{ARTIFACT}#([a-z][a-z0-9-]*)#(\d+)")
_FORMAT = "%(refname)%00%(objectname)%00%(*objectname)%00%(creatordate:iso-strict)%00%(taggername)%00%(contents)%01"


@dataclass(frozen=True)
class Check:
    """One condition of the gate."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Assignment:
    """One tag that put a commit in a stage."""

    stage: str
    number: int
    commit: str
    version: str | None
    when: str
    who: str
    note: str
    rollback: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def history(repository: Repository, stage: str | None = None) -> list[Assignment]:
    """Every assignment, oldest first; of one stage, or of all."""
    versions = {commit: f"v{name}" for name, commit in _versions(repository).items()}
    found = []
    for name, commit, when, who, contents in _tags(repository):
        if (match := _STAGE.fullmatch(name)) and stage in (None, match[1]):
            note, _, facts = contents.partition("\n\n")
            version, back = versions.get(commit), '"rollback": true' in facts
            found.append(Assignment(match[1], int(match[2]), commit, version, when, who, note, back))
    return sorted(found, key=lambda assignment: (assignment.stage, assignment.number))


def current(repository: Repository, stage: str) -> Assignment | None:
    """What is in a stage now."""
    found = history(repository, stage)
    return found[-1] if found else None


def gate(repository: Repository, candidate: str, incumbent: str | None) -> list[Check]:
    """The conditions for putting one commit in the place of another (None: nothing is there yet).

    Raises:
        RepositoryError: results cannot be had.
    """
    return list(_checks(repository, candidate, incumbent))


def _checks(repository: Repository, candidate: str, incumbent: str | None) -> Iterator[Check]:
    faults = record_faults(repository, candidate)
    yield Check("record", not faults, faults[0].text if faults else "made from exactly its commit")
    damaged = repository.cache.faults(repository.lock(candidate).outs[MODEL])
    yield Check("model", not damaged, "; ".join(f"{p} is {s}" for p, s in damaged.items()) or "every byte as recorded")
    yield _data_contract(repository, candidate)
    if incumbent is None:
        yield Check("better", True, "nothing to be better than: the first in this stage")
        return
    from dagobert.side_by_side import read_result

    before, after = read_result(repository, incumbent), read_result(repository, candidate)
    yield _better(before, after)
    yield _calibration(before, after)


def _better(before: Result, after: Result) -> Check:
    from dagobert.side_by_side import compare

    try:
        pair = compare(before, after, common_rows=False, level=1 - ALPHA)
    except RepositoryError as error:
        return Check("better", False, str(error))
    test = pair.test
    better = test["mcnemar_mid_p"] < ALPHA and test["accuracy_difference"] > 0
    points, p = 100 * test["accuracy_difference"], test["mcnemar_mid_p"]
    return Check("better", better, f"accuracy {points:+.2f} points on the same {test['n']:,} rows, p = {p:.3g}")


def _calibration(before: Result, after: Result) -> Check:
    """Each model's on its own test rows, which after new data are not the same ones."""
    old, new = before.metrics.get("test.ece"), after.metrics.get("test.ece")
    calibrated = old is not None and new is not None and new <= old + ECE_SLACK
    return Check("calibration", calibrated, f"calibration error {old} → {new} (at most {ECE_SLACK} more)")


def _data_contract(repository: Repository, commit: str) -> Check:
    content = repository.read(commit, DATA_REPORT)
    if content is None:
        return Check("data", False, f"{DATA_REPORT} is not in the commit")
    report = json.loads(content)
    counts = [int(report.get(name, -1)) for name in ("rows_read", "rows_not_selected", "rows_out", "rows_quarantined")]
    read, unselected, out, quarantined = counts
    if read != unselected + out + quarantined:
        return Check("data", False, f"{read} rows were read, and {unselected + out + quarantined} are accounted for")
    limit = repository.params(commit).get("clean", {}).get("max_quarantined", 1.0)
    share = quarantined / max(out + quarantined, 1)
    return Check("data", share <= limit, f"every row accounted for, {share:.2%} quarantined (at most {limit:.2%})")


def promote(repository: Repository, revision: str, stage: str, *, because: str | None = None) -> tuple[Assignment, list[Check]]:
    """Put a revision in a stage if it passes the gate.

    Args:
        because: put it there although the gate says no; the reason is kept in the tag.

    Raises:
        RepositoryError: the gate says no (names each condition), or it is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", stage):
        raise RepositoryError(f"{stage!r}: a stage is lower-case letters, digits and '-', such as production.")
    commit, now = repository.resolve(revision), current(repository, stage)
    if now is not None and now.commit == commit:
        raise RepositoryError(f"{revision} is in {stage} already, since {now.when} ({now.version}).")
    checks = gate(repository, commit, now.commit if now else None)
    refused = [check for check in checks if not check.passed]
    if refused and because is None:
        reasons = "\n".join(f"  {check.name}: {check.text}" for check in refused)
        raise RepositoryError(
            f"{revision} was not put in {stage}:\n{reasons}\nTo do it all the same, say why: --because REASON."
        )
    note = f"Promote {revision} to {stage}" + (f": {because}" if because else "")
    return _assign(repository, commit, stage, note, {"gate": [vars(check) for check in checks], "because": because}), checks


def rollback(repository: Repository, stage: str, *, because: str | None = None, tag_only: bool = False) -> Assignment:
    """Put back what was in a stage before, and restore it in the working tree without moving HEAD.

    The model must be in the cache, or come from the DVC remote, before anything is tagged.

    Args:
        because: kept in the tag.
        tag_only: leave the working tree as it is.

    Raises:
        RepositoryError: nothing was there before, its bytes cannot be had, or files would be lost; nothing was done then.
    """
    old, new = _last_two(repository, stage)
    try:
        _obtain_model(repository, new.commit)
        if not tag_only:
            restoring.check(repository, new.commit)
    except RepositoryError as error:
        way = "" if tag_only else "\nTo change only the tag and leave the working tree as it is: --tag-only."
        raise RepositoryError(f"{stage} is still {old.version}, {new.version} was not put back: {error}{way}") from None
    note = f"Roll {stage} back from {old.version} to {new.version}" + (f": {because}" if because else "")
    made = _assign(repository, new.commit, stage, note, {"rollback": True, "because": because})
    if not tag_only:
        restoring.put(repository, new.commit)
    return made


def _last_two(repository: Repository, stage: str) -> tuple[Assignment, Assignment]:
    """What is in a stage, and what was there before it was promoted."""
    stack: list[Assignment] = []
    for assignment in history(repository, stage):
        if assignment.rollback:
            while stack and stack[-1].commit != assignment.commit:
                stack.pop()
        else:
            stack.append(assignment)
    if len(stack) < 2:
        there = f"{stack[0].version} is the first" if stack else "it is empty"
        raise RepositoryError(f"{stage}: there is nothing to roll back to ({there}).")
    return stack[-1], stack[-2]


def _obtain_model(repository: Repository, commit: str) -> None:
    model = repository.lock(commit).outs.get(MODEL)
    if model is None:
        raise RepositoryError(f"{commit[:10]} recorded no {MODEL}.")
    restoring.obtain(repository, commit, [model])


def model_directory(repository: Repository, name: str) -> Path:
    """A directory with the model of a stage (`production`) or a revision, every byte checked.

    Raises:
        RepositoryError: nothing has this name, or bytes cannot be had.
    """
    commit = repository.resolve(name)
    lock = repository.lock(commit)
    if MODEL not in lock.outs:
        raise RepositoryError(f"{name}: {commit[:10]} recorded no {MODEL}.")
    md5 = lock.outs[MODEL].md5
    path = repository.root / MODELS / md5.removesuffix(".dir")
    if not (path.is_dir() and md5_path(path) == md5):
        with recorded_outputs(repository, commit) as recorded:
            recorded.require(MODEL)
        repository.cache.restore(lock.outs[MODEL], path)
    return path


def _assign(repository: Repository, commit: str, stage: str, note: str, facts: dict[str, Any]) -> Assignment:
    if not repository.git("config", "--default", "", "user.email"):
        raise RepositoryError('a promotion is signed: git config user.name "Your Name"; git config user.email you@example.org')
    versions = _versions(repository)
    if commit not in versions.values():
        parts = max((tuple(map(int, name.split("."))) for name in versions), default=(0, 0, 0))
        repository.git("tag", "--annotate", f"{ARTIFACT}@v{parts[0]}.{parts[1]}.{parts[2] + 1}", "--message", note, commit)
    now = current(repository, stage)
    number = now.number + 1 if now else 1
    message = f"{note}\n\n{json.dumps(facts, indent=1)}"
    repository.git("tag", "--annotate", f"{ARTIFACT}#{stage}#{number}", "--message", message, "--cleanup=verbatim", commit)
    made = current(repository, stage)
    assert made is not None
    return made


def _versions(repository: Repository) -> dict[str, str]:
    """{version without its v: commit}."""
    found = {}
    for name, commit, *_ in _tags(repository):
        if match := _VERSION.fullmatch(name):
            found[".".join(match.groups())] = commit
    return found


def _tags(repository: Repository) -> Iterator[tuple[str, str, str, str, str]]:
    """(name, commit, when, who, message) of every tag of the artifact."""
    listing = repository.git("for-each-ref", f"--format={_FORMAT}", "refs/tags")
    for chunk in listing.split("\1"):
        if chunk.strip():
            name, tag, commit, when, who, contents = chunk.strip("\n").split("\0")
            if name.startswith((f"refs/tags/{ARTIFACT}@", f"refs/tags/{ARTIFACT}#")):
                yield name, commit or tag, when, who, contents.strip()


def text(found: list[Assignment]) -> str:
    """The history for a terminal."""
    if not found:
        return "Nothing was promoted yet. dagobert promote EXPERIMENT --stage production"
    lines = []
    for stage in dict.fromkeys(assignment.stage for assignment in found):
        lines.append(stage)
        newest_first = [assignment for assignment in reversed(found) if assignment.stage == stage]
        for a in newest_first:
            now = "→" if a is newest_first[0] else " "
            signed = f"{a.when[:16].replace('T', ' ')}  {a.who}: {a.note}"
            lines.append(f" {now} {a.number:3}  {a.version or '':8} {a.commit[:10]}  {signed}")
    return "\n".join(lines)
