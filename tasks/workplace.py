"""Where a run happens: the user's own checkout ("in place"), or a disposable clone of it at a pinned commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks import dvc
from tasks.errors import WorkplaceError


@dataclass(frozen=True)
class Workplace:
    """A checkout in which DVC runs stages.

    Attributes:
        root: the checkout.
        origin: the repository the run belongs to; the same as `root` when the run is in place.
        revision: the full commit id the run started from; None for a repository without a commit.
    """

    root: Path
    origin: Path
    revision: str | None

    @property
    def in_place(self) -> bool:
        """Whether the run works in the user's own checkout."""
        return self.root == self.origin

    @property
    def events(self) -> Path:
        """Where stages write what they do."""
        return self.root / ".dagobert" / "events"


@contextmanager
def open_workplace(origin: Path) -> Iterator[Workplace]:
    """Give the place a run works in.

    Raises:
        WorkplaceError: `origin` is no git and DVC repository.
    """
    root = Path(dvc.git(origin, "rev-parse", "--show-toplevel"))
    if not (root / "dvc.yaml").is_file():
        raise WorkplaceError(f"{root}: no dvc.yaml here. Run from a Dagobert repository.")
    yield Workplace(root=root, origin=root, revision=dvc.head(root))
