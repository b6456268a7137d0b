"""The global concurrency limit that queues trainings where the UI shows it, and patience with a server that is away."""

from __future__ import annotations

import logging
import time

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from tasks.errors import TaskError

_log = logging.getLogger(__name__)


def ensure(name: str, slots: int = 1) -> None:
    """Make the limit where there is none; one that a person set is left as it is."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
            except ObjectAlreadyExists:
                _log.debug("another run made the limit %s", name)


def wait_for_server(patience: float = 600.0) -> None:
    """Wait until the server answers: a new client gives up at once, and a server that died is back within a minute.

    Raises:
        TaskError: it did not come back.
    """
    deadline = time.monotonic() + patience
    while True:
        with get_client(sync_client=True) as client:
            if (error := client.api_healthcheck()) is None:
                return
        if time.monotonic() > deadline:
            raise TaskError(f"the Prefect server does not answer ({error}); run again when it is back")
        time.sleep(1)
