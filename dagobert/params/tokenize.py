"""`tokenize`: from text to token ids."""

from typing import Literal

from pydantic import Field

from dagobert.params.base import Section


class TokenizeParams(Section):
    """Read by `tokenize`."""

    max_length: int = Field(
        ge=3, le=8192, description="most tokens of a sequence, [CLS] and [SEP] included; at most the model's"
    )
    truncation: Literal["head", "tail", "head+tail"] = Field(description="which part of a longer text is kept")
    rows_per_shard: int = Field(ge=1, description="rows in one shard file")
