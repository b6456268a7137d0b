"""`make chaos-flow`: what the Prefect side must survive, often.

    python -m tests.chaos_flow --agree 100        the two doors after 100 random changes of parameters
    python -m tests.chaos_flow --kills 200        kill flow, leash, DVC or stage at random moments: no orphan, next run fine
    python -m tests.chaos_flow --served 20        kill flow, worker or server of a served project: a terminal state
    python -m tests.chaos_flow --together 5       two recorded runs and a `dvc repro` of one repository at once
    python -m tests.chaos_flow --disk-full        a disk that fills up under a stage (in a user namespace of its own)
    python -m tests.chaos_flow --broken           a time limit, and damaged lock files: a plain reason, the next run fine
    python -m tests.chaos_flow --resume 5         a real training killed with its flow goes on to the undisturbed bytes

Prints one line a check and a summary; exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks import liveness
from tests.chaos_flow import served
from tests.flows import doors, full_disk, real
from tests.flows.processes import of_project, wait_until_none
from tests.flows.projects import STAGES, environment, make_project, set_fault, sh, status
from tests.flows.servers import Server, ask, running_server


def main() -> int:
    """Run what was asked for; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_flow", description="Long checks of the Prefect side.")
    parser.add_argument("--agree", type=int, default=0, metavar="N", help="random parameter changes through both doors")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kills at random moments, without a worker")
    parser.add_argument("--served", type=int, default=0, metavar="N", help="kills of flow, worker and server, in turn")
    parser.add_argument("--together", type=int, default=0, metavar="N", help="two runs and a dvc repro at once")
    parser.add_argument("--disk-full", action="store_true")
    parser.add_argument("--broken", action="store_true", help="a time limit, and damaged lock files")
    parser.add_argument("--resume", type=int, default=0, metavar="N", help="real trainings killed with their flow")
    parser.add_argument("--victims", nargs="+", choices=served.VICTIMS, default=served.VICTIMS, help="of --served")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="chaos-flow-") as name:
        base = Path(name).resolve()
        template = make_project(base / "template")
        (base / "home").mkdir()
        if asked.agree or asked.kills or asked.together or asked.disk_full or asked.broken or asked.resume:
            with running_server(base / "home") as server:
                failures += agree(asked.agree, asked.seed, template, base, server)
                failures += kills(asked.kills, asked.seed, template, base, server)
                failures += together(asked.together, template, base, server)
                failures += disk_full(base, server) if asked.disk_full else []
                failures += broken(template, base, server) if asked.broken else []
                failures += resume(asked.resume, base, server)
        if asked.served:
            failures += served.kills(asked.served, asked.seed, base, tuple(asked.victims))
    print(f"{len(failures)} failed", *failures, sep="\n")
    return 1 if failures else 0


def flow_command(root: Path, server: Server) -> subprocess.Popen[bytes]:
    """Start the flow in place, as a person would."""
    values = {**environment(), **server.environment(), "PREFECT_LOGGING_LEVEL": "ERROR"}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.finetune"], cwd=root, env=values, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def agree(n: int, seed: int, template: Path, base: Path, server: Server) -> list[str]:
    """N random changes through both doors."""
    if not n:
        return []
    generator = random.Random(seed)
    by_hand, by_flow = doors.twins(template, base)
    failures = []
    for number in range(1, n + 1):
        change = doors.random_change(generator)
        found = doors.disagreement(by_hand, by_flow, change, lambda root: flow_command(root, server).wait())
        print(f"agree {number}/{n}: {found or 'same'}", flush=True)
        failures += [found] if found else []
    return failures


def kills(n: int, seed: int, template: Path, base: Path, server: Server) -> list[str]:
    """N kills of some process of a run, at a random moment."""
    generator = random.Random(seed)
    root = base / "killed"
    failures = []
    for number in range(1, n + 1):
        if not root.exists():
            shutil.copytree(template, root, symlinks=True)
        doors.write_values(root / "params.yaml", doors.random_change(generator))
        set_fault(root, generator.choice(STAGES), seconds=generator.uniform(0, 3))
        flow = flow_command(root, server)
        time.sleep(generator.uniform(1, 12))
        victims = of_project(root)
        what = "over already"
        if victims:
            victim, signal_number = generator.choice(victims), generator.choice([9, 9, 15])
            try:
                what = f"signal {signal_number} to {' '.join(victim.cmdline()[:4])[-60:]}"
                os.kill(victim.pid, signal_number)
            except (ProcessLookupError, OSError) as error:
                what = f"gone: {error}"
        found = after_kill(root, flow, server)
        print(f"kill {number}/{n}: {what}: {found or 'fine'}", flush=True)
        failures += [f"{what}: {found}"] if found else []
    if n and (left := unended(root, server)):
        failures.append(f"no terminal state after {served.MINUTES} minutes: {left}")
    return failures


def after_kill(root: Path, flow: subprocess.Popen[bytes], server: Server) -> str | None:
    """What is wrong after a kill: orphans, half-written outputs, or a next run that is not fine."""
    try:
        flow.wait(timeout=180)
        wait_until_none(root, timeout=60)
    except (subprocess.TimeoutExpired, AssertionError) as error:
        return f"left running: {error}"
    if partial := list(root.rglob("*.partial")):
        return f"half-written: {partial}"
    shutil.rmtree(root / ".dagobert" / "faults", ignore_errors=True)
    if code := flow_command(root, server).wait(timeout=300):
        return f"the next run ended with {code}"
    return f"status {left}" if (left := status(root)) else None


def unended(root: Path, server: Server) -> list[str]:
    """Runs that have no terminal state in time; a run from a shell that was killed gets it from a later one."""
    deadline = time.monotonic() + served.MINUTES * 60
    while True:
        time.sleep(liveness.SETTLED.total_seconds())
        flow_command(root, server).wait()
        last = list(served.TERMINAL)
        left = ask(server, "flow_runs/filter", {"flow_runs": {"state": {"type": {"not_any_": last}}}, "limit": 200})
        ended = ask(server, "flow_runs/count", {"flow_runs": {"state": {"type": {"any_": last}}}})
        print(f"kills: {ended} runs with a terminal state, {len(left)} without", flush=True)
        if not left or time.monotonic() > deadline:
            return [f"{run['name']} is {run['state_type']}" for run in left]


def together(n: int, template: Path, base: Path, server: Server) -> list[str]:
    """N rounds of two recorded runs and a `dvc repro` of the same repository, all at once."""
    failures = []
    for number in range(1, n + 1):
        root = base / f"together-{number}"
        shutil.copytree(template, root, symlinks=True)
        values = {**environment(), **server.environment(), "DAGOBERT_CLONES": str(base / "clones")}
        flow = [sys.executable, "-m", "flows.finetune", "-S"]
        commands = [[*flow, "train.seed=1"], [*flow, "train.seed=2"], ["dvc", "--wait-for-lock", "repro", "-q"]]
        runs = [
            subprocess.Popen(c, cwd=root, env=values, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in commands
        ]
        codes = [run.wait(timeout=600) for run in runs]
        names = sh(root, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        clean = status(root) == {}
        fine = codes == [0, 0, 0] and len(names) == 2 and clean
        found = None if fine else f"together: exit codes {codes}, {len(names)} experiments, clean status: {clean}"
        print(f"together {number}/{n}: {found or 'fine'}", flush=True)
        failures += [found] if found else []
    return failures


def disk_full(base: Path, server: Server) -> list[str]:
    """A real stage meets a full disk: the run fails with a plain reason and leaves nothing, and is fine when there is room."""
    (base / "full").mkdir()
    project = real.make_real_project(base / "full" / "template", rows=20_000)
    told = full_disk.run(project, base / "full" / "disk", server.environment())
    fine = told["code"] == 2 and "the disk is full" in told["said"] and not told["partial"] and told["next"] == 0
    found = None if fine else f"disk full: {told}"
    print(f"disk full: {found or 'fine'}", flush=True)
    return [found] if found else []


def broken(template: Path, base: Path, server: Server) -> list[str]:
    """A stage over its time limit and damaged lock files: the reason is named, and the next run is fine."""
    failures = []
    for name, words in {"limit": "longer than", "dvc.lock": "dvc.lock", ".dvc/tmp/rwlock": "rwlock"}.items():
        root = base / f"broken-{Path(name).name}"
        shutil.copytree(template, root, symlinks=True)
        if name == "limit":
            set_fault(root, "fetch", seconds=100)
        else:
            (root / name).write_text("schema: '2.0'\nstages: [")
        said = one_stage(root, server, ["--limit", "3"] if name == "limit" else [])
        code = 0 if name.endswith("rwlock") else 2  # that one is mended, and the log says so
        found = None if said[0] == code and words in said[1] and "Traceback" not in said[1] else f"{name}: {said}"
        if name == "dvc.lock":
            (root / name).unlink()
        if found is None and (then := one_stage(root, server, []))[0]:
            found = f"{name}: the next run: {then}"
        print(f"broken, {name}: {found or 'fine'}", flush=True)
        failures += [found] if found else []
    return failures


def one_stage(root: Path, server: Server, options: list[str]) -> tuple[int, str]:
    """Exit code and output of a flow of `fetch` alone."""
    command = [sys.executable, "-m", "tests.flows.one_stage", "fetch", *options]
    values = {**environment(), **server.environment()}
    done = subprocess.run(command, cwd=root, env=values, capture_output=True, text=True, timeout=180)
    return done.returncode, done.stdout + done.stderr


def resume(n: int, base: Path, server: Server) -> list[str]:
    """N real trainings, each killed with its flow at its first checkpoint, go on to the model of an undisturbed one."""
    failures = []
    for number in range(1, n + 1):
        (place := base / f"resume-{number}").mkdir()
        found = real.resumed_wrongly(place, server.environment())
        print(f"resume {number}/{n}: {found or 'same model'}", flush=True)
        failures += [found] if found else []
        shutil.rmtree(place)
    return failures


if __name__ == "__main__":
    raise SystemExit(main())
