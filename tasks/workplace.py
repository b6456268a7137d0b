"""Where a run happens: the user's own checkout ("in place"), or a disposable clone of it at a pinned commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
