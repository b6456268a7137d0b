"""Where each stage's files lie, relative to the repository root. dvc.yaml says the same, and a contract test compares."""

from pathlib import Path

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
SOURCE = Path("data/source.json")
CLEAN = Path("data/clean.parquet")
QUARANTINE = Path("data/quarantine.parquet")
LABELS = Path("data/labels.parquet")
LABEL_MAP = Path("data/labels.json")
TOKENS = Path("data/tokens")
SPLITS = Path("data/splits.parquet")
MODEL = Path("models/finetuned")
REPORTS = Path("reports")
DATA_REPORT = REPORTS / "data.json"
SPLIT_REPORT = REPORTS / "split.json"
TRAIN_REPORT = REPORTS / "train.json"
LOSS_CURVE = REPORTS / "plots" / "loss.csv"
METRICS = REPORTS / "metrics.json"
PREDICTIONS = REPORTS / "predictions.parquet"
PLOTS = REPORTS / "evaluation"
REPORT = REPORTS / "report.html"
MODEL_CARD = REPORTS / "model_card.md"
STATE = Path(".dagobert")  # git-ignored: events, checkpoints, locks
EVENTS = STATE / "events"
CHECKPOINTS = STATE / "checkpoints"
