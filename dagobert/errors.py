"""Every error a user can meet, as one tree.

    DagobertError                 exit code 2: the user can mend it; one message, no traceback
    ├── ParameterError            params.yaml: unknown, misspelt, missing or out-of-range value
    ├── SourceError               fetch: not found, checksum mismatch, no network, too big, unsafe archive
    ├── RecordError               a data file that cannot be read, or lacks a column
    ├── DataContractError         the data broke a rule of `clean` whose policy is to fail
    ├── LabelError                a label outside the declared classes, too few classes
    ├── SplitError                too few rows for the split
    │   └── LeakageError          the same text on two sides
    ├── TokenizationError         tokenizer missing or disagreeing with the reference, max_length too large
    ├── ShardError                a token shard that is damaged or missing
    ├── ModelError                a checkpoint that is no BERT-family encoder, is damaged or has no tokenizer
    ├── TrainingError             training cannot go on
    │   ├── BatchBudgetError      a sequence longer than the token budget of a batch
    │   ├── NonFiniteLossError    NaN or infinite loss, with step and row ids
    │   └── CheckpointError       no usable checkpoint where one was asked for
    ├── InputsChangedError        an input changed while the stage ran
    ├── StorageError              disk full, no permission, read-only
    ├── RepositoryError           git or DVC cannot do what was asked: no such revision, nothing recorded, tree not clean
    │   └── DamagedObjectError    a cache object or output that is missing, or whose bytes are not those recorded
    └── Preempted                 exit code 75 (EX_TEMPFAIL): stopped on request, run again to go on

A message says what was found, where, and what to do. Anything else that escapes is a bug and keeps its traceback.
"""


class DagobertError(Exception):
    """Base of all errors that the user can mend."""

    exit_code = 2


class ParameterError(DagobertError):
    """A value in params.yaml is unknown, misspelt, missing or out of range."""


class SourceError(DagobertError):
    """The source of the data cannot be fetched as asked."""


class RecordError(DagobertError):
    """A data file cannot be read, or lacks a column."""


class DataContractError(DagobertError):
    """The data broke a rule whose policy is to stop the run."""


class LabelError(DagobertError):
    """A label is outside the declared classes, or there are too few classes."""


class SplitError(DagobertError):
    """The rows cannot be split as asked."""


class LeakageError(SplitError):
    """The same text stands on two sides of the split."""


class TokenizationError(DagobertError):
    """The tokenizer is missing, or cannot do what was asked."""


class ShardError(DagobertError):
    """A token shard is damaged or missing."""


class ModelError(DagobertError):
    """A checkpoint cannot be used as a BERT-family encoder."""


class TrainingError(DagobertError):
    """Training cannot go on."""


class BatchBudgetError(TrainingError):
    """A sequence is longer than the token budget of a batch."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite."""


class CheckpointError(TrainingError):
    """No usable checkpoint where one was asked for."""


class InputsChangedError(DagobertError):
    """An input of a stage changed while the stage ran."""


class StorageError(DagobertError):
    """The disk is full, or a file cannot be written."""


class RepositoryError(DagobertError):
    """Git or DVC cannot do what was asked of this repository."""


class DamagedObjectError(RepositoryError):
    """A cache object or an output is missing, or its bytes are not those that were recorded."""


class Preempted(DagobertError):
    """The run was asked to stop, saved its state and can be run again to go on."""

    exit_code = 75
