"""`data`: where the rows come from."""

from typing import Literal

from pydantic import Field, field_validator

from dagobert.params.base import Section

FIXED_COLUMNS = ("row_id", "text", "text_pair", "label", "source_file", "source_line")


class DataParams(Section):
    """Read by `fetch` and `clean`."""

    source: str | None = Field(
        description="URI of the data: package://module/path, a local path or glob, https://…. null: nothing to fetch"
    )
    sha256: str | None = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 the fetched data must have (64 hex digits); null: any, recorded"
    )
    max_bytes: int = Field(ge=1, description="largest source accepted, bytes")
    path: str = Field(
        min_length=1,
        description="what is read: a file or a directory; data/raw is what `fetch` wrote; a glob goes into data.source",
    )
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "folders"] = Field(
        description="file format; auto goes by the file name"
    )
    encoding: str = Field(min_length=1, description="text encoding: auto, or a Python codec such as utf-8, cp1252, utf-16")
    delimiter: Literal["auto", ",", ";", "\t", "|"] = Field(description="what parts the fields of a CSV file")
    quoting: Literal["doubled", "backslash", "none"] = Field(
        description='quotes in CSV/TSV: a quote inside quotes is doubled (""), has a backslash (\\"), or quotes mean nothing'
    )
    columns: tuple[str, ...] | None = Field(
        strict=False,
        description="names of the columns of a CSV/TSV file without a header line; null: its first line names them",
    )
    text: str = Field(min_length=1, description="column with the text (ignored for class folders)")
    label: str = Field(min_length=1, description="column with the label (ignored for class folders)")
    text_pair: str | None = Field(
        min_length=1, description="column with a second text (sentence pairs), cleaned like the first; null: one text a row"
    )
    extra: tuple[str, ...] = Field(
        strict=False, description="more columns to keep in data/clean.parquet, as text: a group, a time, a split …"
    )
    where: dict[str, str] = Field(description="keep only rows whose columns hold these values, {column: value}; {}: all rows")

    @field_validator("extra")
    @classmethod
    def _free_names(cls, extra: tuple[str, ...]) -> tuple[str, ...]:
        taken = [name for name in extra if name in FIXED_COLUMNS]
        if taken or len(set(extra)) < len(extra):
            what = f"the name {taken[0]!r} is taken in data/clean.parquet" if taken else "a column stands there twice"
            raise ValueError(what)
        return extra
