"""Several training processes through torchrun, which start together and end together, whoever is killed.

The chain is stage → torchrun's agent → one worker a process. Signals do not travel along it (each worker is a session of its
own), so each link ends when the one above it has gone: `end_with_parent`, told by the kernel (Linux only).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from dagobert.errors import Preempted, TrainingError
from dagobert.lifeline import end_with_parent
from dagobert.training import StopRequest

_TICK = 0.1  # seconds between looks at the agent


def launch(processes: int, module: str) -> None:
    """Run a module in several processes, and end as they end.

    Raises:
        Preempted: they were asked to stop, and saved their state.
        TrainingError: one of them failed or was killed; torchrun ended the others.
    """
    arguments = ["--standalone", f"--nproc-per-node={processes}", "-m", module]
    command = [sys.executable, "-m", __name__, str(os.getpid()), *arguments]
    with StopRequest().listening() as stop, subprocess.Popen(command) as agent:
        while agent.poll() is None:
            if stop.asked:
                agent.send_signal(signal.SIGTERM)
                agent.wait()
            time.sleep(_TICK)
    if stop.asked:
        raise Preempted(f"stopped on {stop.asked}. Its state is saved: run again to go on.")
    if agent.returncode:
        raise TrainingError(
            f"a process of torchrun ended with exit code {agent.returncode} (its own message stands above). "
            f"Run again to go on from the last checkpoint."
        )


def main() -> None:
    """What `launch` starts: torchrun's agent, tied to the stage."""
    end_with_parent(int(sys.argv[1]))
    from torch.distributed.run import main as run

    run(sys.argv[2:])


if __name__ == "__main__":
    main()
