"""Several training processes through torchrun, which start together and end together, whoever is killed.

The chain is stage → torchrun's agent → one worker a process. Signals do not travel along it (each worker is a session of its
own), so each link ends when the one above it has gone: `end_with_parent`, told by the kernel (Linux only).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dagobert.errors import Preempted, TrainingError
from dagobert.lifeline import end_with_parent
from dagobert.training import StopRequest

ENDS = "DAGOBERT_ENDS"  # environment variable: directory where each process writes its exit code
_TICK = 0.1  # seconds between looks at the agent


def launch(nodes: int, processes: int, module: str) -> None:
    """Run a module in several processes, here and on the other nodes, and end as they end.

    Raises:
        Preempted: they were asked to stop, and saved their state.
        TrainingError: one of them failed or was killed; torchrun ended the others. Its exit code is that process's own.
    """
    arguments = [*meeting(nodes, os.environ), f"--nproc-per-node={processes}", "-m", module]
    with tempfile.TemporaryDirectory(prefix="dagobert-") as directory:
        ends = Path(directory)
        code, asked = _run(arguments, os.environ | {ENDS: str(ends)})
        codes = {int(path.read_text(encoding="ascii") or 0) for path in ends.iterdir()}
    if Preempted.exit_code in codes and code >= 0:  # nobody gives this before the state is saved
        raise Preempted(f"stopped{f' on {asked}' if asked else ' with the others'}. Its state is saved: run again to go on.")
    if asked or code:
        raise _failure(code, codes, asked)


def _run(arguments: list[str], environment: Mapping[str, str]) -> tuple[int, str | None]:
    """torchrun's exit code, and the signal that asked to stop meanwhile."""
    command = [sys.executable, "-m", __name__, str(os.getpid()), *arguments]
    with StopRequest().listening() as stop, subprocess.Popen(command, env=environment) as agent:
        while agent.poll() is None:
            if stop.asked:
                agent.send_signal(signal.SIGTERM)
                agent.wait()
            time.sleep(_TICK)
    return agent.returncode, stop.asked


def _failure(code: int, codes: set[int], asked: str | None) -> TrainingError:
    # where torchrun itself was killed, its processes were stopped by that, and may still be saving
    own = code if code < 0 else min((c for c in codes if c), default=code or TrainingError.exit_code)
    own = 128 - own if own < 0 else own  # killed by a signal, as a shell says it
    how = f"a process of torchrun ended with exit code {own} (its own message stands above)."
    if asked:
        how = f"stopped on {asked}, and ended before the state of that moment was saved (exit code {own})."
    error = TrainingError(f"{how} Run again to go on from the last checkpoint.")
    error.exit_code = own
    return error


def meeting(nodes: int, environment: Mapping[str, str]) -> list[str]:
    """torchrun's arguments for where the processes find each other.

    Which node this is and where node 0 listens differ from machine to machine, so they are no parameters: torchrun's own
    variables say them, PET_NODE_RANK and PET_RDZV_ENDPOINT.

    Raises:
        TrainingError: there are several nodes, and a variable is missing or wrong.
    """
    if nodes == 1:
        return ["--standalone"]
    rank, endpoint = environment.get("PET_NODE_RANK", ""), environment.get("PET_RDZV_ENDPOINT", "")
    if not rank.isdigit() or int(rank) >= nodes:
        raise TrainingError(
            f"train.nnodes is {nodes}, and the environment variable PET_NODE_RANK is {rank!r}. "
            f"Set it to this machine's number, 0 to {nodes - 1}."
        )
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise TrainingError(
            f"train.nnodes is {nodes}, and the environment variable PET_RDZV_ENDPOINT is {endpoint!r}. "
            f"Set it to HOST:PORT of node 0, the same on every node."
        )
    fixed = ["--rdzv-backend=static", f"--rdzv-endpoint={endpoint}"]  # fixed: node 0 stays node 0, with its checkpoints
    return [f"--nnodes={nodes}", f"--node-rank={rank}", *fixed]


def said(code: int) -> int:
    """Tell `launch` how this process ends, for torchrun hands on no exit code; called by the module that was launched."""
    place = os.environ.get(ENDS)
    if place:
        with suppress(OSError):  # where torchrun was killed, nobody waits for it any more
            (Path(place) / os.environ["RANK"]).write_text(str(code), encoding="ascii")
    return code


def main() -> None:
    """What `launch` starts: torchrun's agent, tied to the stage."""
    end_with_parent(int(sys.argv[1]))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    try:
        run(sys.argv[2:])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)


if __name__ == "__main__":
    main()
