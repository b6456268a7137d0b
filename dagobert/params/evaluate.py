"""`evaluate`: how the model is judged."""

from pydantic import Field

from dagobert.params.base import Section


class EvaluateParams(Section):
    """Read by `evaluate`."""

    confidence_level: float = Field(gt=0.5, lt=1, description="level of the intervals beside the scores")
    baseline: bool = Field(description="also fit TF-IDF + logistic regression on the same rows")
    baseline_rows: int | None = Field(
        ge=2, description="most training rows the baseline is fitted on, drawn from more; null: all of them (memory grows)"
    )
    calibration_bins: int = Field(ge=2, le=100, description="bins of the calibration error and the reliability diagram")
    bootstrap_resamples: int = Field(
        ge=100, le=100_000, description="bootstrap resamples behind the intervals of F1 and of differences"
    )
    temperature: bool = Field(description="also score the validation rows, and say what temperature scaling would give")
