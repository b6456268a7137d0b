"""Two or more recorded experiments beside each other: parameters, data, figures, and a paired test on the same held-out rows.

The first one named is what the others are compared with. Test rows are matched by their text and label, not by row number,
because appended or re-read data numbers its rows anew. Different held-out rows are refused: the difference of two accuracies on
different rows says nothing about one row. Asked for all the same, only rows that both held out are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dagobert import files
from dagobert.errors import RepositoryError
from dagobert.experiments import locked_params
from dagobert.lockfile import flatten
from dagobert.recorded import recorded_outputs
from dagobert.repository import Repository
from dagobert.significance import compare_correct
from dagobert.stages import paths

RESAMPLES = 10_000
HEADLINE = ("accuracy", "macro_f1", "log_loss", "ece")
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Result:
    """What one experiment left. `rows`: a key for each clean row (R,); `test`: keys of the test rows (N,), `correct` (N,)."""

    name: str
    params: dict[str, Any]
    metrics: dict[str, Any]
    rows: Keys
    test: Keys
    correct: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """One experiment against the first. Differences are (other − first)."""

    first: str
    other: str
    params: dict[str, tuple[Any, Any]]
    rows_added: int
    rows_removed: int
    metrics: dict[str, tuple[float | None, float | None]]
    same_test_rows: bool
    test: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def side_by_side(
    repository: Repository, revisions: Sequence[str], *, common_rows: bool = False, level: float = 0.95
) -> list[Pair]:
    """Compare each revision with the first.

    Args:
        common_rows: where the held-out rows differ, compare on those that both held out.

    Raises:
        RepositoryError: an experiment or its files cannot be had, or the held-out rows differ.
    """
    first, *others = [read_result(repository, revision) for revision in revisions]
    return [compare(first, other, common_rows=common_rows, level=level) for other in others]


def read_result(repository: Repository, revision: str) -> Result:
    """Take an experiment's results out of the cache and git.

    Raises:
        RepositoryError: a file is missing or damaged; says how to get it.
    """
    commit = repository.resolve(revision)
    with recorded_outputs(repository, commit) as recorded:
        wanted = (paths.CLEAN, paths.SPLITS, paths.LABELS, paths.PREDICTIONS, paths.METRICS)
        clean, splits, _, predictions, metrics = (recorded.require(path.as_posix()) for path in wanted)
        keys, row_ids = row_keys(clean)
        side = np.asarray(pq.read_table(splits, columns=["split"])["split"].cast(pa.string()).to_pylist(), dtype=object)
        judged = pq.read_table(predictions)
        test_ids = judged["row_id"].to_numpy()
        at = np.searchsorted(row_ids, test_ids)
        if len(side) != len(keys) or set(test_ids.tolist()) != set(row_ids[side == "test"].tolist()):
            raise RepositoryError(f"{revision}: its predictions are not those of its test rows. dagobert reproduce {revision}")
        return Result(
            name=revision,
            params=locked_params(recorded.lock),
            metrics=flatten(files.read_json(metrics)),
            rows=np.sort(keys),
            test=keys[at],
            correct=_correct(judged),
        )


def row_keys(clean: Path) -> tuple[Keys, npt.NDArray[np.int64]]:
    """A 64-bit key of each row's text and label, numbered where the same row comes again, and the row ids; both (R,)."""
    import pandas as pd

    names = [name for name in ("text", "text_pair", "label") if name in pq.read_schema(clean).names]
    table = pq.read_table(clean, columns=["row_id", *names])
    values = pd.DataFrame({name: pd.Series(table[name].cast(_plain(table[name].type)).to_pylist()).map(str) for name in names})
    again = values.groupby(names).cumcount()
    keys = pd.util.hash_pandas_object(values.assign(again=again), index=False).to_numpy()
    return keys.astype(np.uint64), table["row_id"].to_numpy()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _correct(predictions: pa.Table) -> npt.NDArray[np.bool_]:
    if "label_id" in predictions.schema.names:
        return np.asarray(predictions["label_id"].to_numpy() == predictions["predicted_id"].to_numpy())
    pairs = zip(predictions["label_ids"].to_pylist(), predictions["predicted_ids"].to_pylist(), strict=True)
    return np.array([sorted(a) == sorted(b) for a, b in pairs], dtype=bool)


def compare(first: Result, other: Result, *, common_rows: bool, level: float) -> Pair:
    """One pair.

    Raises:
        RepositoryError: the held-out rows differ, and nobody said that common rows will do.
    """
    same = np.array_equal(np.sort(first.test), np.sort(other.test))
    common = np.intersect1d(first.test, other.test)
    if not same and not common_rows:
        raise RepositoryError(
            f"{first.name} and {other.name} were judged on different rows ({len(first.test):,} and {len(other.test):,}, "
            f"{len(common):,} in common), so their figures cannot be compared. --common-rows compares on what both held out."
        )
    if not len(common):
        raise RepositoryError(f"{first.name} and {other.name} have no held-out row in common.")
    right = [result.correct[_positions(result.test, common)] for result in (other, first)]
    outcome = compare_correct(right[0], right[1], level=level, resamples=RESAMPLES).as_json()
    renamed = {"only_first_right": "only_other_right", "only_second_right": "only_first_right"}
    numbers = {name for result in (first, other) for name, value in result.metrics.items() if _is_number(value)}
    return Pair(
        first=first.name,
        other=other.name,
        params={
            name: (first.params.get(name), other.params.get(name))
            for name in sorted(first.params.keys() | other.params.keys())
            if first.params.get(name) != other.params.get(name)
        },
        rows_added=len(np.setdiff1d(other.rows, first.rows)),
        rows_removed=len(np.setdiff1d(first.rows, other.rows)),
        metrics={name: (first.metrics.get(name), other.metrics.get(name)) for name in sorted(numbers)},
        same_test_rows=bool(same),
        test={renamed.get(name, name): value for name, value in outcome.items()},
    )


def _positions(values: Keys, wanted: Keys) -> npt.NDArray[np.intp]:
    order = np.argsort(values)
    positions: npt.NDArray[np.intp] = order[np.searchsorted(values[order], wanted)]
    return positions


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def text(pairs: Sequence[Pair]) -> str:
    """The comparison for a terminal."""
    return "\n\n".join("\n".join(_lines(pair)) for pair in pairs)


def _lines(pair: Pair) -> Iterator[str]:
    yield f"{pair.first} → {pair.other}"
    if pair.params:
        yield "  parameters"
        yield from (f"    {name}: {a} → {b}" for name, (a, b) in pair.params.items())
    else:
        yield "  parameters: the same"
    if pair.rows_added or pair.rows_removed:
        yield f"  data: {pair.rows_added:,} rows added, {pair.rows_removed:,} removed"
    else:
        yield "  data: the same rows"
    yield "  figures on the test rows"
    for short in HEADLINE:
        a, b = pair.metrics.get(f"test.{short}", (None, None))
        if a is not None and b is not None:
            yield f"    {short:9} {a:.4f} → {b:.4f}  ({b - a:+.4f})"
    t = pair.test
    rows = "the same" if pair.same_test_rows else "only those both held out:"
    yield f"  paired test ({rows} {t['n']:,} rows): accuracy {_signed(t['accuracy_difference'])}, 95 % interval " + (
        f"{_signed(t['accuracy_difference_low'])} to {_signed(t['accuracy_difference_high'])}"
    )
    yield f"    only {pair.other} right: {t['only_other_right']}, only {pair.first} right: {t['only_first_right']}; " + (
        f"McNemar mid-p {t['mcnemar_mid_p']:.3g}"
    )
    yield f"    {verdict(pair)}"


def verdict(pair: Pair, alpha: float = 0.05) -> str:
    """One sentence: which is better, if any."""
    if pair.test["mcnemar_mid_p"] >= alpha:
        return "No difference that could not be chance."
    better, worse = (pair.other, pair.first) if pair.test["accuracy_difference"] > 0 else (pair.first, pair.other)
    return f"{better} is better than {worse}, and not by chance."


def _signed(value: float) -> str:
    return f"{100 * value:+.2f} points"


def picture(pairs: Sequence[Pair], path: Path) -> None:
    """Draw the accuracy differences with their intervals (a PNG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.4 + 0.5 * len(pairs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for at, pair in enumerate(reversed(pairs)):
        t = pair.test
        middle, low, high = (100 * t[f"accuracy_difference{end}"] for end in ("", "_low", "_high"))
        significant = t["mcnemar_mid_p"] < 0.05
        color = "tab:gray" if not significant else ("tab:green" if middle > 0 else "tab:red")
        axes.plot([low, high], [at, at], color=color, linewidth=2)
        axes.plot([middle], [at], marker="o", color=color)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [pair.other for pair in reversed(pairs)])
    axes.set_ylim(-0.6, len(pairs) - 0.4)
    axes.set_xlabel(f"accuracy less that of {pairs[0].first}, percentage points (95 % interval, same test rows)")
    with files.atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
