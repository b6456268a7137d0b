"""`split`: which rows train, validate and test."""

from typing import Literal

from pydantic import Field

from dagobert.params.base import Section


class SplitParams(Section):
    """Read by `split`."""

    strategy: Literal["stratified", "random", "ordered"] = Field(
        description="stratified: same class shares on every side; random: shuffled; ordered: first rows train, last rows test"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the shuffle")
    train_size: int | float | Literal["all"] = Field(description="rows (integer), share (0 to 1) or all: every row left over")
    validation_size: int | float = Field(description="rows (integer) or share of all rows (0 to 1)")
    test_size: int | float = Field(description="rows (integer) or share of all rows (0 to 1)")
