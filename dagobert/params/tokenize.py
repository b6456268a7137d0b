"""`tokenize`: from text to token ids."""

from typing import Literal

from pydantic import Field

from dagobert.params.base import Section


class TokenizeParams(Section):
    """Read by `tokenize`."""

    max_length: int = Field(
        ge=3, le=8192, description="most tokens of a sequence, [CLS] and [SEP] included; at most the model's"
    )
    truncation: Literal["head", "tail", "head+tail", "windows"] = Field(
        description="which part of a longer text is kept; windows: all, in overlapping sequences whose scores are averaged"
    )
    stride: int = Field(ge=0, description="tokens that neighbouring windows share; only with windows")
    add_words: str = Field(
        min_length=1, description="file with words to add to the vocabulary, one a line (# begins a comment)"
    )
    engine: Literal["auto", "tokenizers"] = Field(
        description="auto: nanotoken where it is installed and supports the tokenizer; the ids are the same"
    )
    rows_per_shard: int = Field(ge=1, description="rows in one shard file")
