"""`clean`: from the text in the file to the text the model reads."""

from typing import Literal

from pydantic import Field, field_validator

from dagobert.cleaning import CleanRecipe, check_steps
from dagobert.params.base import Section

RowPolicy = Literal["quarantine", "fail"]
RepeatPolicy = Literal["keep_first", "quarantine", "keep", "fail"]


class CleanParams(Section):
    """Read by `clean`; the recipe (steps and replacements) goes into the model, and `predict` repeats it."""

    steps: tuple[str, ...] = Field(
        strict=False,
        description="in this order, any of: mojibake (needs ftfy), markup, entities, urls, users, nfc, nfkc, control, "
        "zero_width, white_space",
    )
    break_replacement: str = Field(
        description="what `markup` puts where <br>, <p> and other breaks stood; '' glues words together"
    )
    url_replacement: str = Field(description="what `urls` puts in the place of a web address")
    user_replacement: str = Field(description="what `users` puts in the place of an @name")
    min_chars: int = Field(ge=0, description="shortest text after cleaning, characters")
    max_chars: int | None = Field(ge=1, description="longest text after cleaning, characters; null: any")
    unreadable: RowPolicy = Field(
        description="a record that cannot be read: damaged quotes, wrong number of fields, bytes that are no text"
    )
    empty: RowPolicy = Field(description="no text, or none left after cleaning")
    missing_label: RowPolicy = Field(description="no label")
    unknown_label: RowPolicy = Field(description="a label that is not in labels.classes (where that is set)")
    wrong_length: RowPolicy = Field(description="shorter than min_chars or longer than max_chars")
    conflicting_labels: RepeatPolicy = Field(description="the same text under different labels; quarantine: all of its rows")
    duplicates: RepeatPolicy = Field(description="the same text and label again")
    normalized_duplicates: RepeatPolicy = Field(
        description="the same but for case, punctuation and white space; keep: do not look"
    )
    near_duplicates: RepeatPolicy = Field(
        description="almost the same text and the same label (MinHash, slow); keep: do not look"
    )
    near_duplicate_threshold: float = Field(
        gt=0, le=1, description="share of word triples two texts must have in common to be near duplicates"
    )
    max_quarantined: float = Field(ge=0, le=1, description="largest share of rows that may be quarantined, 0 to 1")

    @field_validator("steps")
    @classmethod
    def _known_steps(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        wrong = check_steps(steps)
        if wrong:
            raise ValueError(wrong)
        return steps

    @property
    def recipe(self) -> CleanRecipe:
        """The part that changes text."""
        return CleanRecipe(self.steps, self.break_replacement, self.url_replacement, self.user_replacement)
