"""`model`: the pre-trained encoder to start from."""

from pydantic import Field

from dagobert.params.base import Section


class ModelParams(Section):
    """Read by `tokenize` (the vocabulary) and `train` (the weights)."""

    name_or_path: str = Field(
        min_length=1,
        description="checkpoint: package://module/path, a local directory, or a hub name such as google-bert/bert-base-uncased",
    )
