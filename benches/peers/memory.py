"""Backup and restore under a limit of memory that the kernel holds, the page cache included.

A control group of this bench's own gets the limit, and a worker in it runs the commands; of
version 2 (memory.max) or, where the kernel has its memory controller there, of version 1
(memory.limit_in_bytes). The page cache is dropped first, so that what is read counts as well.

Not here: how much the commands take by themselves (measure.py, in every table).
"""

import json
import os
import shutil
import signal
import socket
from dataclasses import dataclass

from machine import BenchError, CommandError, Worker
from pieces import say, step
from tools import Cellarman

LIMIT_BYTES = 128 << 20
ROOT = "/sys/fs/cgroup"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


class Version2:
    """The unified hierarchy."""

    def __init__(self, parent):
        self.parent = parent

    def limit(self, group, limit):
        if "memory" not in read(f"{self.parent}/cgroup.subtree_control").split():
            write(f"{self.parent}/cgroup.subtree_control", "+memory")
        os.mkdir(group)
        write(f"{group}/memory.max", str(limit))
        if os.path.exists(f"{group}/memory.swap.max"):
            write(f"{group}/memory.swap.max", "0")

    def figures(self, group):
        events = dict(line.split() for line in read(f"{group}/memory.events").splitlines())
        peak = f"{group}/memory.peak"
        return {
            "peak": int(read(peak)) if os.path.exists(peak) else None,
            "hits": int(events["max"]),
            "kills": int(events["oom_kill"]),
        }


class Version1:
    """A hierarchy for memory alone."""

    def __init__(self, parent):
        self.parent = parent

    def limit(self, group, limit):
        os.mkdir(group)
        write(f"{group}/memory.limit_in_bytes", str(limit))

    def figures(self, group):
        lines = read(f"{group}/memory.oom_control").splitlines()
        return {
            "peak": int(read(f"{group}/memory.max_usage_in_bytes")),
            "hits": int(read(f"{group}/memory.failcnt")),
            "kills": next(int(w.split()[1]) for w in lines if w.startswith("oom_kill ")),
        }


def hierarchy():
    """Where memory can be limited here, or an error that says why it cannot."""
    for parent in (ROOT, f"{ROOT}/unified"):
        controllers = f"{parent}/cgroup.controllers"
        if os.path.exists(controllers) and "memory" in read(controllers).split():
            return Version2(parent)
    if os.path.exists(f"{ROOT}/memory/memory.limit_in_bytes"):
        return Version1(f"{ROOT}/memory")
    raise BenchError(f"no control group below {ROOT} can limit memory")


class MemoryLimiter:
    """A child that stays root and makes control groups on request."""

    def __init__(self):
        self.ours = None
        if os.geteuid() != 0:
            return
        self.ours, theirs = socket.socketpair()
        if os.fork() == 0:
            self.ours.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with theirs.makefile("rw") as stream:
                serve(stream)
            os._exit(0)
        theirs.close()
        self.stream = self.ours.makefile("rw")

    def ask(self, **request):
        """The child's answer; raises with its words where it failed."""
        if self.ours is None:
            raise BenchError("only root can make control groups")
        self.stream.write(json.dumps(request) + "\n")
        self.stream.flush()
        answer = json.loads(self.stream.readline())
        if problem := answer.get("problem"):
            raise BenchError(problem)
        return answer


def serve(stream):
    for line in stream:
        request = json.loads(line)
        group = None
        try:
            kind = hierarchy()
            group = f"{kind.parent}/cellarman-bench-{os.getppid()}"
            if request["do"] == "limit":
                kind.limit(group, request["bytes"])
                write(f"{group}/cgroup.procs", str(request["pid"]))
                answer = {"version": type(kind).__name__.removeprefix("Version")}
            else:
                answer = kind.figures(group)
                os.rmdir(group)
        except (OSError, BenchError) as error:
            answer = {"problem": str(error)}
            if group and request["do"] == "limit" and os.path.isdir(group):
                os.rmdir(group)
        stream.write(json.dumps(answer) + "\n")
        stream.flush()


@dataclass
class Limited:
    """One command under the limit, and what came of it."""

    label: str
    sample: dict | None = None
    figures: dict | None = None
    problem: str | None = None

    @property
    def is_done(self):
        return self.sample is not None and self.problem is None


def run_limited(bench, limiter, argv, env):
    """Runs one command in a control group of its own: (sample, figures of the group)."""
    worker = Worker(bench.scratch)
    worker.start()
    try:
        limiter.ask(do="limit", pid=worker.process.pid, bytes=LIMIT_BYTES)
        try:
            sample, error = worker.measure([step(argv)], env), None
        except CommandError as failure:
            sample, error = None, failure
    finally:
        worker.stop()
    figures = limiter.ask(do="figures")
    if error:
        raise CommandError(f"{error} (kills for want of memory: {figures['kills']})")
    return sample, figures


def under_limit(bench, limiter, dropper):
    """A backup and a restore, with few jobs and with many, under the limit."""
    tool = bench.tool(Cellarman, "http")
    plan = [("zstd:1", 2)] if bench.options.small else [("none", 2), ("zstd:1", 8)]
    results = []
    for compression, jobs in plan:
        archive = f"limit-{compression.replace(':', '-')}"
        backup = Limited(f"backup create, {compression}, --jobs {jobs}")
        restore = Limited(f"restore, {compression}, --jobs {jobs}")
        results += [backup, restore]
        try:
            run_backup(bench, limiter, dropper, backup, (tool, archive, compression, jobs))
            run_restore(bench, limiter, dropper, restore, (tool, archive, jobs))
        except (BenchError, CommandError) as error:
            for result in (backup, restore):
                if result.sample is None:
                    failed = "failed: " if isinstance(error, CommandError) else ""
                    result.problem = f"{failed}{error}"
            say(f"memory: {error}")
    return results


def run_backup(bench, limiter, dropper, result, how):
    tool, archive, compression, jobs = how
    bench.cluster.archive_by(tool.archive_script(archive, compression))
    try:
        bench.cluster.settle()
        dropper.drop()
        argv = tool.backup_argv(archive, compression, jobs)
        result.sample, result.figures = run_limited(bench, limiter, argv, tool.backup_env())
    finally:
        bench.cluster.archive_by(None)


def run_restore(bench, limiter, dropper, result, how):
    tool, archive, jobs = how
    folder = f"{bench.scratch}/restored"
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder, 0o700)
    dropper.drop()
    argv = tool.restore_argv(archive, tool.last_backup(archive), folder, jobs)
    try:
        result.sample, result.figures = run_limited(bench, limiter, argv, tool.env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        tool.minio.bucket.delete_all(f"cellarman/{archive}/")
