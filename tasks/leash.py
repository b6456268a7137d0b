"""Holds a command on a leash: the command and all it started end when its owner ends, whatever ends the owner.

Run as a program between a task and DVC, because nothing less was enough: DVC that is sent SIGTERM leaves its stage running,
which later writes into outputs; a flow that is killed (-9) can no longer signal anybody; and Prefect's cancellation signals one
process only. The leash is told of its owner's death by the kernel (Linux) or by asking every second (elsewhere), ends the
process group with SIGTERM, waits, then SIGKILL, and reaps. It uses the standard library only.

    leash.py OWNER_PID GRACE_SECONDS COMMAND…
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TICK = 1.0  # seconds between looks at the owner
_CHILD_TICK = 0.05


def prctl(option: int, value: int) -> None:
    """Ask the Linux kernel for something about this process; nothing elsewhere."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class Leash:
    """One command in a process group of its own."""

    def __init__(self, owner: int, grace: float, command: list[str]) -> None:
        """Nothing starts before `run`."""
        self.owner, self.grace, self.command = owner, grace, command
        self.stopping = False
        self.status: int | None = None

    def run(self) -> int:
        """Run the command to its end; its exit code, or 128 + the signal that ended it."""
        wakeup = self._catch_signals()
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        self.group = self._start()
        while self.status is None and not self.stopping:
            select.select([wakeup], [], [], _TICK)
            _drain(wakeup)
            self._reap()
            if os.getppid() != self.owner:
                self.stopping = True
        self._end_group()
        if self.status is None:
            return 128 + signal.SIGTERM
        return os.waitstatus_to_exitcode(self.status) if os.WIFEXITED(self.status) else 128 + os.WTERMSIG(self.status)

    def _catch_signals(self) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in _STOP:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return reader

    def _on_stop(self, *_: object) -> None:
        self.stopping = True

    def _start(self) -> int:
        me = os.getpid()
        child = os.fork()
        if child:
            with contextlib.suppress(OSError):  # the child does the same; whoever is first
                os.setpgid(child, child)
            return child
        try:
            os.setpgid(0, 0)
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == me:
                os.execvp(self.command[0], self.command)
        except OSError as error:
            os.write(2, f"{self.command[0]}: {error.strerror}\n".encode())
        os._exit(127)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.group:
                    self.status = status

    def _end_group(self) -> None:
        """SIGTERM to all that is left of the group, then SIGKILL after the grace."""
        if not self._signal_group(signal.SIGTERM):
            return
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline:
            self._reap()
            if not self._signal_group(0):
                return
            time.sleep(_CHILD_TICK)
        while self._signal_group(signal.SIGKILL):
            self._reap()
            time.sleep(_CHILD_TICK)

    def _signal_group(self, number: int) -> bool:
        try:
            os.killpg(self.group, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS says so of a group of zombies
            return False
        return True


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)


if __name__ == "__main__":
    sys.exit(Leash(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]).run())
