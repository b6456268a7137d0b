"""`labels`: from label text to class ids."""

from pydantic import Field

from dagobert.params.base import Section


class LabelsParams(Section):
    """Read by `encode-labels`."""

    classes: tuple[str, ...] | None = Field(
        strict=False, description="the labels as they stand in the data, in id order; null: found in the data, sorted"
    )
    names: dict[str, str] = Field(description="what a label is called in the model, {label in the data: name}; {}: as it is")
    separator: str | None = Field(
        min_length=1, description="what parts several labels of one row, such as ';'; null: one label a row (or a list column)"
    )
