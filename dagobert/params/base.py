"""What every section of params.yaml shares: frozen, strict, no unknown names, no defaults (those stand in params.yaml)."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of params.yaml. Values are validated and passed through unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())
