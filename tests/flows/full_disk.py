"""A disk that fills up under a stage, and has room again: prints as JSON what the two runs did.

Mounts a small file system, so it runs as root or in a user namespace of its own:

    unshare --user --map-root-user --mount python -m tests.flows.full_disk PROJECT MOUNT_POINT
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.flows import real
from tests.flows.projects import sh

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
ROOM = 400_000  # bytes left when the stage begins: enough for DVC's own files, too few for the data


def possible() -> bool:
    """Whether this machine allows the namespace."""
    return shutil.which("unshare") is not None and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


def run(template: Path, mount: Path, server: dict[str, str]) -> dict[str, Any]:
    """Both runs, in a namespace of their own."""
    mount.mkdir()
    command = [*NAMESPACE, sys.executable, "-m", "tests.flows.full_disk", str(template), str(mount)]
    done = subprocess.run(command, cwd=real.REPOSITORY, env={**os.environ, **server}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main(template: Path, mount: Path) -> int:
    sh(mount.parent, "mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(mount))
    root = mount / "project"
    shutil.copytree(template, root, symlinks=True)
    filler = mount / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(mount).free - ROOM))
    full = real.command(root, {}, "fetch")
    said, _ = full.communicate(timeout=180)
    outs = [path for path in (root / "data").glob("*") if not (template / "data" / path.name).exists()]
    partial = [str(path) for path in [*outs, *root.rglob("*.partial")]]
    filler.unlink()
    room = real.command(root, {}, "fetch")
    then, _ = room.communicate(timeout=180)
    print(json.dumps({"code": full.returncode, "said": said, "partial": partial, "next": room.returncode, "then": then}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
