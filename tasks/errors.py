"""What a task raises. The message is what a person reads in the morning, so it is the stage's own words first.

TaskError                        shown without a traceback
├── StageError                   the stage ended with an error that running it again will not mend
│   ├── StageInterruptedError    it was killed, or asked to stop (exit code 75): running it again goes on where it was
│   ├── StageTimeoutError        it took longer than its policy allows, and was ended
│   └── SourceUnavailableError   the network or a store did not answer: running it again may help
└── WorkplaceError               the clone, the parameters or the record of a run
    └── NotCleanError            outputs do not belong to their inputs, so nothing was recorded
"""


class TaskError(Exception):
    """Base of the errors of this package; shown without a traceback."""


class StageError(TaskError):
    """A stage ended with an error."""


class StageInterruptedError(StageError):
    """A stage was killed or stopped on request."""


class StageTimeoutError(StageError):
    """A stage took too long and was ended."""


class SourceUnavailableError(StageError):
    """Something outside this machine did not answer."""


class WorkplaceError(TaskError):
    """A run cannot be set up or recorded."""


class NotCleanError(WorkplaceError):
    """`dvc status` is not clean after the last stage."""
