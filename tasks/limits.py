"""The global concurrency limit that queues trainings where the UI shows it."""

from __future__ import annotations

import logging

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

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
