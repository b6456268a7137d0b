"""fetch: get the data named by data.source, check it and keep a snapshot in data/raw.

Where data.path is not data/raw, or data.source is null, there is nothing to fetch: data/raw is then left empty and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dagobert import events, files
from dagobert.sources import Snapshot, describe, fetch, local_files
from dagobert.stages import paths

if TYPE_CHECKING:
    from dagobert.params import Params

OUTPUTS: tuple[Path, ...] = (paths.RAW, paths.SOURCE)
_DOWNLOADS = paths.STATE / "downloads"


def wanted(params: Params) -> bool:
    """Whether there is anything to fetch: data.path lies in data/raw, and a source is named."""
    path = Path(params.data.path)
    return params.data.source is not None and (path == paths.RAW or path.is_relative_to(paths.RAW))


def inputs(params: Params) -> list[Path]:
    """The files of a local source; a remote one has none."""
    if not wanted(params) or params.data.source is None:
        return []
    return [path for path, _ in local_files(params.data.source) or []]


def run(params: Params) -> None:
    """Write data/raw and data/source.json.

    Raises:
        SourceError: not found, no network, too big, another checksum.
    """
    data = params.data
    if wanted(params) and data.source is not None:
        snapshot = fetch(data.source, paths.RAW, sha256=data.sha256, max_bytes=data.max_bytes, downloads=_DOWNLOADS)
        events.say(f"{snapshot.n_files:,} files, {snapshot.n_bytes:,} bytes, SHA-256 {snapshot.sha256}")
    else:
        snapshot = _nothing(params)
    found = snapshot.to_json()
    if not paths.SOURCE.is_file() or files.read_json(paths.SOURCE) != found:
        files.write_json(paths.SOURCE, found)


def _nothing(params: Params) -> Snapshot:
    why = "data.source is null" if params.data.source is None else f"data.path is {params.data.path}"
    events.say(f"nothing to fetch: {why}")
    present = describe(None, paths.RAW) if paths.RAW.is_dir() else None
    if present is None or present.n_files:
        with files.atomic_directory(paths.RAW):
            pass
    return Snapshot(None, None, 0, 0)
