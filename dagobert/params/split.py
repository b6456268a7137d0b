"""`split`: which rows train, validate and test."""

from typing import Literal

from pydantic import Field

from dagobert.params.base import Section


class SplitParams(Section):
    """Read by `split`."""

    strategy: Literal["stratified", "random", "ordered", "time", "hash", "given", "kfold"] = Field(
        description="stratified: same class shares on every side; random: without a look at labels; ordered: first rows train, "
        "last rows test; time: the same by a column; hash: by content, stable when data is added; given: by a column; kfold: "
        "one fold tests"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the draw")
    train_size: int | float | Literal["all"] = Field(description="rows (integer), share (0 to 1) or all: every row left over")
    validation_size: int | float = Field(description="rows (integer) or share of all rows (0 to 1)")
    test_size: int | float = Field(description="rows (integer) or share of all rows (0 to 1); kfold: not used")
    group: str | None = Field(description="column whose rows of one value stay on one side; null: none")
    column: str | None = Field(
        description="column that strategy time sorts by, or that strategy given takes the side from; null: none"
    )
    folds: int = Field(ge=2, le=100, description="number of folds of strategy kfold")
    fold: int = Field(ge=0, lt=100, description="the fold that tests, 0 to folds - 1, of strategy kfold")
    near_duplicates: float | None = Field(
        gt=0,
        le=1,
        description="share of word triples from which texts count as nearly the same and stay on one side (hash, given: are "
        "reported); null: do not look",
    )
