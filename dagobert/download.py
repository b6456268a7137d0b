"""Remote files → local files: https by the standard library, everything else by fsspec.

A download is kept under a name made of its URI, with what the server said of the file (ETag or date). When it breaks off and is
tried again, it goes on from there if the server still says the same; otherwise it starts afresh.
"""

from __future__ import annotations

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
from dagobert.errors import SourceError
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
    if not source.startswith(("http://", "https://")):
        raise SourceError(f"data.source: {source}: this kind of address is not supported.")
    name = unquote(PurePosixPath(urlsplit(source).path).name) or "data"
    if name in {".", ".."} or "/" in name or "\0" in name:
        raise SourceError(f"data.source: {source} does not end in a file name.")
    waiting = Waiting(source, downloads)
    with waiting.locked(), storage_errors(staging / name):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _get(source, waiting, max_bytes)
                break
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                if attempt == _ATTEMPTS or not _passing(error):
                    raise _explain(source, error) from error
                events.warn(f"the connection broke ({error}); going on where it ended")
        waiting.data.replace(staging / name)
        waiting.facts.unlink(missing_ok=True)


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
        self.data.unlink(missing_ok=True)
        self.facts.write_text(json.dumps(facts), encoding="utf-8")


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
        http.client.IncompleteRead: fewer bytes than `total`.
    """
    with (
        path.open("ab") as file,
        events.progress("downloading", None if total is None else max(total >> 20, 1), unit="MB") as bar,
    ):
        bar.start_at(have >> 20)
        while piece := stream.read(_CHUNK):
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


def _explain(source: str, error: Exception) -> Exception:
    if isinstance(error, urllib.error.HTTPError):
        hint = {401: "it needs a login", 403: "access is denied", 404: "there is no such file", 410: "it is gone"}.get(
            error.code, ""
        )
        return SourceError(
            f"data.source: {source}: the server answers {error.code} {error.reason}{': ' + hint if hint else ''}."
        )
    if (
        isinstance(error, OSError)
        and not isinstance(error, (urllib.error.URLError, ConnectionError, TimeoutError))
        and error.errno
    ):
        return error  # the disk's fault: `storage_errors` words it
    reason = getattr(error, "reason", error)
    return SourceError(
        f"data.source: {source} cannot be fetched ({reason}). Is there a network? "
        f"What was received is kept: run it again to go on."
    )
