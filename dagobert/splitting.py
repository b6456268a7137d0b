"""Rows to sides: train, validation, test and unused.

Rows of one text (but for case, punctuation and white space), near duplicates, and rows of one group where a group column is
given, are one *unit*, and a unit is never divided. Units are drawn in the order of a hash of their text and the seed: the
split does not depend on the order of the rows. Sizes are filled test first, then validation, then train, so that more
training rows leave the test rows as they are.

Shapes: N rows, U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from dagobert.errors import LeakageError, SplitError
from dagobert.textkeys import Keys

SIDES = ("train", "validation", "test", "unused")
TRAIN, VALIDATION, TEST, UNUSED = range(4)

IntArray = npt.NDArray[np.int64]
Index = npt.NDArray[np.int32]  # positions of rows and units: half the memory of 64 bits
Side = npt.NDArray[np.int8]  # codes of `SIDES`
Size = int | float | str

_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("unused", "", "none"), UNUSED),
}


@dataclass(frozen=True)
class Sizes:
    """Rows wanted on each side; `train` None: every row left over."""

    train: int | None
    validation: int
    test: int


@dataclass(frozen=True)
class Units:
    """Rows that belong together. Shapes: of_row (N,); key, size, first (U,): hash, rows and first row of each unit."""

    of_row: Index
    key: Keys
    size: Index
    first: Index


def wanted_sizes(n_rows: int, train: Size, validation: Size, test: Size) -> Sizes:
    """Sizes in rows from what params.yaml says: rows, a share of all rows, or `all`.

    Raises:
        SplitError: a side would be empty, or the data has fewer rows than asked for.
    """

    def rows(size: Size, name: str) -> int:
        good = size >= 1 if isinstance(size, int) else 0 < float(size) < 1
        if not good:
            raise SplitError(f"split.{name}_size is {size!r}: give rows (1 or more) or a share of all rows (above 0, below 1).")
        n = size if isinstance(size, int) else round(float(size) * n_rows)
        if n < 1:
            raise SplitError(f"split.{name}_size is {size!r}: of {n_rows:,} rows that is none. Give a larger share, or rows.")
        return n

    sizes = Sizes(None if train == "all" else rows(train, "train"), rows(validation, "validation"), rows(test, "test"))
    need = (1 if sizes.train is None else sizes.train) + sizes.validation + sizes.test
    if need > n_rows:
        raise SplitError(
            f"the split asks for {'1 or more' if sizes.train is None else format(sizes.train, ',')} train + "
            f"{sizes.validation:,} validation + {sizes.test:,} test = {need:,} rows, but the data has {n_rows:,}. Lower "
            f"split.train_size, split.validation_size or split.test_size, or add data."
        )
    return sizes


def make_units(text_keys: Keys, groups: Keys | None = None) -> Units:
    """Units of rows that share a text key or a group, and whatever these connect. Shapes: (N,), (N,)."""
    assert len(text_keys) < 2**31
    of_row = _ids(text_keys)
    if groups is not None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        of_group = _ids(groups)
        n_texts = int(of_row.max(initial=-1)) + 1
        n = n_texts + int(of_group.max(initial=-1)) + 1
        edges = coo_array((np.ones(len(of_row), dtype=np.int8), (of_row, n_texts + of_group)), shape=(n, n))
        of_row = _ids(connected_components(edges, directed=False)[1][of_row].astype(np.uint64))
    return _described(of_row, text_keys if groups is None else groups)


def join_units(units: Units, pairs: Sequence[Sequence[int]]) -> Units:
    """The units with those of each pair of rows made one. Shapes: pairs (P, 2)."""
    if not pairs:
        return units
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = units.of_row[np.asarray(pairs)].T
    n = len(units.size)
    edges = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n, n))
    of_row = connected_components(edges, directed=False)[1][units.of_row].astype(np.int32)
    return _described(of_row, units.key[units.of_row])


def _described(of_row: Index, keys: Keys) -> Units:
    """Units by the number of each row's unit. Shapes: (N,), (N,)."""
    n_units = int(of_row.max(initial=-1)) + 1
    size = np.bincount(of_row, minlength=n_units).astype(np.int32)
    first = np.empty(n_units, dtype=np.int32)
    first[of_row[::-1]] = np.arange(len(of_row) - 1, -1, -1, dtype=np.int32)  # the last write wins: the first row
    # The smallest key of a unit names it, whatever the order of its rows.
    key = np.full(n_units, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(key, of_row, keys)
    return Units(of_row, key, size, first)


def stratified(units: Units, labels: npt.NDArray[np.integer], sizes: Sizes, seed: int) -> Side:
    """Draw sides with the class shares of the whole; a unit counts for the label of its first row. Shapes: (N,) to (N,)."""
    label = labels[units.first]
    n_classes = int(labels.max(initial=0)) + 1
    order = _hash_order(units, seed)
    by_class = [order[label[order] == c] for c in range(n_classes)]
    side = np.full(len(units.size), UNUSED, dtype=np.int8)
    for code, want in ((TEST, sizes.test), (VALIDATION, sizes.validation), (TRAIN, sizes.train)):
        free = [members[side[members] == UNUSED] for members in by_class]
        left = np.array([units.size[members].sum() for members in free], dtype=np.int64)
        sides_to_come = 1 + (code == VALIDATION) + 2 * (code == TEST)
        quota = left if want is None else apportion(left, want, reserve=sides_to_come - 1)
        for members, q in zip(free, quota.tolist(), strict=True):
            side[members[take(units.size[members], q)]] = code
    return side[units.of_row]


def shuffled(units: Units, sizes: Sizes, seed: int) -> Side:
    """Draw sides without looking at labels. Shapes: to (N,)."""
    return _fill(units, _hash_order(units, seed), sizes)


def by_position(units: Units, position: npt.NDArray[np.integer], sizes: Sizes) -> Side:
    """First rows train, last rows test, those before them validate; a unit stands where its first row stands.

    Shapes: position (N,), a rank or time of each row, to (N,).
    """
    earliest = np.full(len(units.size), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(earliest, units.of_row, position)
    order = np.lexsort((units.first, earliest))
    side = np.full(len(order), UNUSED, dtype=np.int8)
    for code, want in ((TEST, sizes.test), (VALIDATION, sizes.validation)):
        rest = order[side[order] == UNUSED][::-1]
        side[rest[np.cumsum(units.size[rest], dtype=np.int64) <= want]] = code
    rest = order[side[order] == UNUSED]
    side[rest if sizes.train is None else rest[np.cumsum(units.size[rest], dtype=np.int64) <= sizes.train]] = TRAIN
    return side[units.of_row]


def by_hash(units: Units, train: Size, validation: Size, test: Size, seed: int) -> Side:
    """A unit's side follows from its text and the seed alone, so that no row changes side when data is added. To (N,).

    Raises:
        SplitError: sizes in rows (a count cannot stay true when data is added), or shares above 1 together.
    """
    if isinstance(validation, int) or isinstance(test, int) or isinstance(train, int):
        raise SplitError(
            f"split.strategy is hash, which takes shares (0 to 1), but the sizes are train {train!r}, validation "
            f"{validation!r}, test {test!r}. A number of rows cannot stay true when data is added; train_size may be all."
        )
    shares = [float(test), float(validation), 1 - float(test) - float(validation) if train == "all" else float(train)]
    if min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise SplitError(
            f"split sizes are {train!r} + {validation!r} + {test!r}: shares must be above 0 and at most 1 together."
        )
    at = mixed(units.key, seed).astype(np.float64) / 2.0**64
    side = np.full(len(at), UNUSED, dtype=np.int8)
    side[at < sum(shares)] = TRAIN
    side[at < shares[0] + shares[1]] = VALIDATION
    side[at < shares[0]] = TEST
    return side[units.of_row]


def k_fold(
    units: Units, labels: npt.NDArray[np.integer], folds: int, fold: int, train: Size, validation: Size, seed: int
) -> Side:
    """Fold `fold` of `folds` tests, the rest is drawn for validation and training. Every row is tested in one fold. To (N,).

    Raises:
        SplitError: `fold` is not below `folds`, or too few rows.
    """
    if not 0 <= fold < folds:
        raise SplitError(f"split.fold is {fold}: with split.folds {folds} it is 0 to {folds - 1}.")
    label = labels[units.first]
    order = _hash_order(units, seed)
    of_unit = np.zeros(len(order), dtype=np.int64)
    begun = 0
    for c in range(int(labels.max(initial=0)) + 1):
        members = order[label[order] == c]
        middle = np.cumsum(units.size[members], dtype=np.int64) - (units.size[members] + 1) // 2
        of_unit[members] = (begun + middle) % folds  # dealt like cards, each class going on where the last one ended
        begun += int(units.size[members].sum())
    tested = of_unit == fold
    test_rows = int(units.size[tested].sum())
    n_rows = len(units.of_row)
    if test_rows == 0:
        raise SplitError(f"split.folds is {folds}, but the data has {n_rows:,} rows: fold {fold} is empty. Lower split.folds.")
    sizes = wanted_sizes(n_rows, train, validation, test_rows)
    rest = np.flatnonzero(~tested[units.of_row])
    of_rest = make_units(units.key[units.of_row[rest]])
    most = len(rest) - sizes.validation
    train_rows = None if sizes.train is None else min(sizes.train, most)
    within = stratified(of_rest, labels[rest], Sizes(train_rows, sizes.validation, 0), seed)
    side = np.full(n_rows, TEST, dtype=np.int8)
    side[rest] = within
    return side


def given(values: Sequence[str | None]) -> Side:
    """Sides as a column of the data says. Shapes: (N,) strings to (N,).

    Raises:
        SplitError: names a value that is no side.
    """
    known = {value: _NAMES.get((value or "").strip().lower()) for value in set(values)}
    bad = sorted(str(value) for value, code in known.items() if code is None)
    if bad:
        raise SplitError(f"the split column holds {bad[0]!r}: it may hold train, validation (or val, dev), test, and unused.")
    side = np.array([known[value] for value in values], dtype=np.int8)
    missing = [name for code, name in enumerate(SIDES[:3]) if not (side == code).any()]
    if missing:
        raise SplitError(f"the split column puts no row on the side {' and '.join(missing)}. All three sides need rows.")
    return side


def leaks(side: Side, text_keys: Keys) -> list[tuple[int, int]]:
    """Pairs of rows on two sides with one text, but for case, punctuation and white space: one pair a text. Shapes: (N,),
    (N,)."""
    used = np.flatnonzero(side != UNUSED)
    order = used[np.lexsort((side[used], text_keys[used]))]
    a, b = order[:-1], order[1:]
    found = np.flatnonzero((text_keys[a] == text_keys[b]) & (side[a] != side[b]))
    found = found[np.unique(text_keys[a[found]], return_index=True)[1]]
    return sorted((min(x, y), max(x, y)) for x, y in zip(a[found].tolist(), b[found].tolist(), strict=True))


def leakage(side: Side, pairs: Sequence[tuple[int, int]], where: Mapping[int, str]) -> LeakageError:
    """The error for rows that `leaks` found; `where` names the rows of the first pair."""
    a, b = pairs[0]
    return LeakageError(
        f"{len(pairs):,} {'text stands' if len(pairs) == 1 else 'texts stand'} on two sides of the split, such as {where[a]} "
        f"({SIDES[side[a]]}) and {where[b]} ({SIDES[side[b]]}): the score would be too good. Set duplicates aside in the clean "
        f"section of params.yaml, or let Dagobert make the split."
    )


def take(sizes: npt.NDArray[np.integer], quota: int) -> npt.NDArray[np.bool_]:
    """Which units, in order, fit into `quota` rows: a unit that is too large is left out and the next one tried. (U,) to
    (U,)."""
    taken = np.zeros(len(sizes), dtype=np.bool_)
    candidates = np.arange(len(sizes))
    while quota > 0 and len(candidates):
        candidates = candidates[sizes[candidates] <= quota]
        n = int(np.searchsorted(np.cumsum(sizes[candidates], dtype=np.int64), quota, side="right"))
        taken[candidates[:n]] = True
        quota -= int(sizes[candidates[:n]].sum())
        candidates = candidates[n:]
    return taken


def apportion(available: IntArray, want: int, reserve: int = 0) -> IntArray:
    """Divide `want` rows among classes in proportion (largest remainder), at least one each where there are enough.

    Args:
        available: rows of each class, shape (C,).
        want: rows to divide, at most the sum.
        reserve: rows of each class to leave for later sides, where a class has few.
    Returns:
        Rows from each class, shape (C,); sums to `want` unless the reserve forbids it.
    """
    total = int(available.sum())
    if want >= total:
        return available
    exact = available * (want / total)
    quota: IntArray = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - quota), kind="stable")
    quota[order[: want - int(quota.sum())]] += 1
    quota = np.minimum(quota, available)
    # A rare class gets one row from the largest, as long as the later sides can have one too.
    for c in np.flatnonzero((quota == 0) & (available > reserve)):
        donor = int(np.argmax(quota))
        if quota[donor] > 1:
            quota[donor] -= 1
            quota[c] += 1
    return quota


def missing_classes(counts: Sequence[Sequence[int]], names: Sequence[str]) -> list[str]:
    """A warning for each side that lacks a class the data has. Shapes: counts (4, C), rows of each class on each of `SIDES`."""
    here = np.asarray(counts) > 0
    warnings = []
    for code, name in enumerate(SIDES[:3]):
        lacking = [repr(names[c]) for c in np.flatnonzero(here.any(axis=0) & ~here[code]).tolist()]
        if lacking:
            shown = ", ".join(lacking[:10]) + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
            warnings.append(f"the {name} side has no row of {shown}")
    return warnings


def mixed(values: Keys, seed: int) -> Keys:
    """Keys in another order for every seed: the finaliser of SplitMix64 (Steele et al. 2014) over key xor hashed seed."""
    salt = np.frombuffer(blake2b(str(seed).encode(), digest_size=8).digest(), dtype="<u8").astype(np.uint64)
    z = values ^ salt
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def _fill(units: Units, order: Index, sizes: Sizes) -> Side:
    side = np.full(len(order), UNUSED, dtype=np.int8)
    for code, want in ((TEST, sizes.test), (VALIDATION, sizes.validation), (TRAIN, sizes.train)):
        free = order[side[order] == UNUSED]
        side[free if want is None else free[take(units.size[free], want)]] = code
    return side[units.of_row]


def _hash_order(units: Units, seed: int) -> Index:
    return np.argsort(mixed(units.key, seed)).astype(np.int32)  # `mixed` is one to one: no ties


def _ids(values: Keys) -> Index:
    return np.unique(values, return_inverse=True)[1].astype(np.int32)
