"""`clean`: from the text in the file to the text the model reads."""

from pydantic import Field

from dagobert.params.base import Section


class CleanParams(Section):
    """Read by `clean`."""

    max_quarantined: float = Field(ge=0, le=1, description="largest share of rows that may be quarantined, 0 to 1")
