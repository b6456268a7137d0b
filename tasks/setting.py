"""Opens the place a flow run works in: in place, like `dvc repro`, when it was started by hand and asks for nothing special."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from tasks import cancelling, clones, dvc, limits
from tasks.errors import WorkplaceError
from tasks.forms import chosen
from tasks.liveness import alive, bury_killed_runs
from tasks.plain import hide_tracebacks, outlive_the_reader
from tasks.running import Logger
from tasks.values import Values, differences, write_values
from tasks.workplace import Workplace


def repository() -> Path:
    """The root of the repository this process works in.

    Raises:
        WorkplaceError: there is none.
    """
    root = Path(dvc.git(Path.cwd(), "rev-parse", "--show-toplevel"))
    if not (root / "dvc.yaml").is_file():
        raise WorkplaceError(f"{root}: no dvc.yaml here. Run from a Dagobert repository.")
    return root


@contextmanager
def at_home() -> Iterator[Path]:
    """Give the repository, with this flow run shown as living and heeding a cancellation: what every flow opens first.

    Runs that were killed here before it get their last state: where `make serve` does not run, nobody else gives it to them.

    Raises:
        WorkplaceError: there is no repository.
    """
    hide_tracebacks()
    outlive_the_reader()
    origin = repository()
    with alive(origin, flow_run.id), cancelling.heeded():
        _bury(origin)
        yield origin


def _bury(origin: Path) -> None:
    logger: Logger = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            for name in bury_killed_runs(client, origin):
                logger.info("The process of run %s is gone; marked as crashed", name)
    except Exception as error:  # the server may be away for a moment, and this run can do without
        logger.warning("Looking for dead runs failed: %s", error)


def readable(file: str) -> str:
    """The absolute path of a file that a run is to read, looked for before any work.

    Raises:
        WorkplaceError: it is not on this machine.
    """
    hide_tracebacks()
    path = Path(file).absolute()
    if not path.is_file():
        raise WorkplaceError(
            f"{path}: there is no such file on {socket.gethostname()}, where this run works. Name one that is."
        )
    return str(path)


@contextmanager
def workplace(revision: str, values: Values, *, keep: bool = True) -> Iterator[Workplace]:
    """Give the place of this flow run, its parameters written.

    In place when no revision is named, no value set and no deployment involved; else a disposable clone.

    Args:
        keep: whether a clone is kept to be looked at when the run fails.

    Raises:
        WorkplaceError: no repository, no such revision, or a wrong value.
    """
    logger: Logger = get_run_logger()
    with at_home() as origin, _place(origin, revision, values, logger, keep) as place:
        yield place


@contextmanager
def _place(origin: Path, revision: str, values: Values, logger: Logger, keep: bool) -> Iterator[Workplace]:
    if not revision.strip() and not values and deployment.id is None:
        logger.info("Working in place, in %s", origin)
        yield Workplace(root=origin, origin=origin, revision=dvc.head(origin))
        return
    kept = None
    try:
        with clones.disposable(origin, revision, str(flow_run.name), keep=keep) as place:
            kept = place.root
            values = differences(_chosen(values), place.root / "params.yaml")
            write_values(place.root / "params.yaml", values)
            logger.info("Working on commit %s in %s", str(place.revision)[:10], place.root)
            for section, fields in values.items():
                for name, value in fields.items():
                    logger.info("Parameter %s.%s = %r", section, name, value)
            yield place
    except Exception:
        if kept is not None and kept.exists():
            logger.warning("The clone is kept to be looked at: %s", kept)
        raise


def _chosen(values: Values) -> Values:
    """What a person changed: a deployment's form sends what it only showed, too, and the revision may have other values."""
    if not values or deployment.id is None:
        return values
    limits.wait_for_server()
    with get_client(sync_client=True) as client:
        return chosen(values, client.read_deployment(UUID(str(deployment.id))).parameter_openapi_schema or {})
