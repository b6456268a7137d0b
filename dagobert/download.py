"""Remote files → local files: https by the standard library, s3, gs and whatever else fsspec knows by fsspec.

A download is kept under a name made of its URI, with what the server said of the file (ETag or date). When it breaks off and is
tried again, it goes on from there if the server still says the same; otherwise it starts afresh.
"""

from __future__ import annotations

import glob
import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from dagobert import __version__, events
from dagobert.errors import SourceError, StorageError
from dagobert.files import storage_errors

_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_HEADERS = {"User-Agent": f"dagobert/{__version__}", "Accept-Encoding": "identity"}
_ATTEMPTS = 5  # times a broken connection is taken up again in one run


def is_remote(source: str) -> bool:
    """Whether a source must be fetched over a network."""
    return "://" in source and not source.startswith(("package://", "file://"))


def download(source: str, staging: Path, max_bytes: int, downloads: Path) -> None:
    """Bring a remote source into `staging`.

    Raises:
        SourceError: not found, no network, too big.
    """
    if source.startswith("hf://datasets/") and not PurePosixPath(source).suffix and "*" not in source:
        from dagobert.hub import fetch_dataset

        fetch_dataset(source, staging)
    elif source.startswith(("http://", "https://")):
        _web(source, staging, max_bytes, downloads)
    else:
        _filesystem(source, staging, max_bytes, downloads)


def _web(source: str, staging: Path, max_bytes: int, downloads: Path) -> None:
    name = unquote(PurePosixPath(urlsplit(source).path).name) or "data"
    if name in {".", ".."} or "/" in name or "\0" in name:
        raise SourceError(f"data.source: {source} does not end in a file name.")
    waiting = Waiting(source, downloads)
    with waiting.locked():
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _get(source, waiting, max_bytes)
                break
            except (http.client.HTTPException, OSError) as error:
                if attempt == _ATTEMPTS or not _passing(error):
                    raise _explain(source, error) from error
                events.warn(f"the connection broke ({error}); going on where it ended")
        waiting.finish(staging / name)


def _filesystem(source: str, staging: Path, max_bytes: int, downloads: Path) -> None:
    import fsspec

    scheme = source.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise SourceError(f"data.source: {source}: {scheme}:// needs more than is installed here ({error}).") from error
    try:
        if glob.has_magic(path):
            names = sorted(name for name in system.glob(path) if system.isfile(name))
        else:
            names = sorted(system.find(path)) if system.isdir(path) else [path]
        sizes = {name: _size_and_version(system, name) for name in names}
    except SourceError:
        raise
    except Exception as error:  # what a file system raises is its own affair: any of it means "cannot be fetched"
        raise _unreachable(source, error) from error
    if not names:
        raise SourceError(f"data.source: {source} matches no file.")
    total = sum(size for size, _ in sizes.values())
    if total > max_bytes:
        raise SourceError(f"data.source: {source} has {total:,} bytes, more than data.max_bytes ({max_bytes:,}) allows.")
    root = PurePosixPath(path) if len(names) > 1 or names[0] != path else PurePosixPath(path).parent
    while not all(PurePosixPath(name).is_relative_to(root) for name in names):
        root = root.parent
    for name in names:
        _one(system, name, staging / PurePosixPath(name).relative_to(root), sizes[name], f"{scheme}://{name}", downloads)


def _one(system: Any, name: str, place: Path, expected: tuple[int, str], source: str, downloads: Path) -> None:
    size, version = expected
    place.parent.mkdir(parents=True, exist_ok=True)
    waiting = Waiting(source, downloads)
    with waiting.locked():
        have, facts = waiting.so_far()
        if facts != {"version": version} or have > size:
            waiting.begin({"version": version})
            have = 0
        try:
            with system.open(name, "rb", block_size=4 << 20, cache_type="readahead") as stream:
                stream.seek(have)
                receive(stream, waiting.data, have, size, size, source)
        except (SourceError, StorageError):
            raise
        except Exception as error:
            raise _unreachable(source, error) from error
        waiting.finish(place)


def _size_and_version(system: Any, name: str) -> tuple[int, str]:
    info = system.info(name)
    marks = {key: str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "updated", "size") if info.get(key)}
    return int(info["size"]), json.dumps(marks, sort_keys=True)


def _unreachable(source: str, error: Exception) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError(f"data.source: {source}: there is no such file.")
    kind = type(error).__name__
    return SourceError(
        f"data.source: {source} cannot be fetched ({kind}: {error}). Check the address, the network and your credentials. "
        f"What was received is kept: run it again to go on."
    )


class Waiting:
    """A download on its way: `data` holds the bytes so far, `facts` what the server said of the file."""

    def __init__(self, source: str, downloads: Path) -> None:
        name = hashlib.sha256(source.encode()).hexdigest()[:24]
        downloads.mkdir(parents=True, exist_ok=True)
        self.data, self.facts, self._lock = (downloads / f"{name}.{kind}" for kind in ("partial", "json", "lock"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second fetch of the same source away."""
        import fcntl

        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError("another fetch of the same source is under way. Wait for it to end.") from None
            yield

    def so_far(self) -> tuple[int, dict[str, Any]]:
        """Bytes that are there already, and what the server said; nothing of use: (0, {})."""
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
            return self.data.stat().st_size, facts
        except (OSError, ValueError):
            return 0, {}

    def begin(self, facts: dict[str, Any]) -> None:
        """Start afresh."""
        with storage_errors(self.data):
            self.data.write_bytes(b"")
            self.facts.write_text(json.dumps(facts), encoding="utf-8")

    def finish(self, place: Path) -> None:
        """All bytes are there: move them to their place."""
        self.data.replace(place)
        self.facts.unlink(missing_ok=True)


def _get(source: str, waiting: Waiting, max_bytes: int) -> None:
    have, facts = waiting.so_far()
    go_on = {"Range": f"bytes={have}-", "If-Range": facts["validator"]} if have and facts.get("validator") else {}
    try:
        response = _open(urllib.request.Request(source, headers=_HEADERS | go_on))
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # All of it is there, or the file became shorter: only a fresh start tells.
        waiting.begin({})
        response = _open(urllib.request.Request(source, headers=_HEADERS))
    with response:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            waiting.begin({})
            raise http.client.HTTPException("the server sent another part than was asked for")
        if response.status != 206:
            have = 0
            strong = response.headers.get("ETag", "")
            validator = strong if strong.startswith('"') else response.headers.get("Last-Modified")
            waiting.begin({"validator": validator})
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        if total is not None and total > max_bytes:
            raise SourceError(f"data.source: {source} has {total:,} bytes, more than data.max_bytes ({max_bytes:,}) allows.")
        receive(response, waiting.data, have, total, max_bytes, source)


def receive(stream: Any, path: Path, have: int, total: int | None, max_bytes: int, source: str) -> None:
    """Append what `stream` gives to `path`, which holds `have` bytes.

    Raises:
        SourceError: more than `max_bytes`.
        StorageError: no room for it.
        http.client.IncompleteRead: fewer bytes than `total`.
    """
    with (
        path.open("ab") as file,
        events.progress("downloading", None if total is None else max(total >> 20, 1), unit="MB") as bar,
    ):
        bar.start_at(have >> 20)
        while piece := stream.read(_CHUNK):
            with storage_errors(path):
                file.write(piece)
            before, have = have, have + len(piece)
            bar.update((have >> 20) - (before >> 20))
            if have > max_bytes:
                file.truncate(0)
                raise SourceError(f"data.source: {source} has more bytes than data.max_bytes ({max_bytes:,}) allows.")
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise SourceError(f"data.source: {req.full_url} sends on to the unprotected address {newurl}.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> Any:
    return urllib.request.build_opener(_Redirects()).open(request, timeout=_TIMEOUT)


def _passing(error: Exception) -> bool:
    """Whether it is worth going on: the connection was there and broke."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (500, 502, 503, 504)
    if isinstance(error, urllib.error.URLError):
        return False
    return isinstance(error, (http.client.HTTPException, ConnectionError, TimeoutError))


_HINTS = {401: ": it needs a login", 403: ": access is denied", 404: ": there is no such file", 410: ": it is gone"}


def _explain(source: str, error: Exception) -> SourceError:
    if isinstance(error, urllib.error.HTTPError):
        hint = _HINTS.get(error.code, "")
        return SourceError(f"data.source: {source}: the server answers {error.code} {error.reason}{hint}.")
    reason = getattr(error, "reason", error)
    return SourceError(
        f"data.source: {source} cannot be fetched ({reason}). Is there a network? "
        f"What was received is kept: run it again to go on."
    )
