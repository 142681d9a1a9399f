"""Runs commands one by one and says what each cost: a worker that speaks JSON lines.

A request is {"steps": [[argv, rename], ...], "env": {...}, "log": path}: commands to run in
order, each followed by a rename ([from, to] or null) as PostgreSQL's archiver does it. The answer
is {"exit_code", "wall_s", "drain_s", "cpu_s", "largest_rss", "tree_rss"} (sizes in bytes).
`wall_s` ends when the last command returns, `drain_s` when the last process that they left behind
is gone; CPU and memory count those too, because the worker is their subreaper. It is a process of
its own so that it has no other children, stays small, and starts commands as cheaply as an
archiver does.

Not here: what is run, and why.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SAMPLE_S = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(pid):
    """The processes below `pid`, by the kernel's own list of children."""
    found, open_ids = [], [pid]
    while open_ids:
        parent = open_ids.pop()
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    children = [int(word) for word in file.read().split()]
                found += children
                open_ids += children
        except OSError:
            continue  # It ended meanwhile.
    return found


def resident(pid):
    """Bytes of `pid` in memory; pages shared with others count in full."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


class TreeSampler(threading.Thread):
    """Keeps the highest sum of resident memory over all descendants of this process."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0
        self.ended = threading.Event()

    def run(self):
        me = os.getpid()
        while not self.ended.wait(SAMPLE_S):
            self.peak = max(self.peak, sum(resident(pid) for pid in descendants(me)))


class Usage:
    """What the processes that were waited for have used."""

    def __init__(self):
        self.cpu = 0.0
        self.largest = 0

    def wait(self):
        """Reaps one process; (pid, exit code), or None when there is none left."""
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return None
        self.cpu += usage.ru_utime + usage.ru_stime
        self.largest = max(self.largest, usage.ru_maxrss * 1024)
        return pid, os.waitstatus_to_exitcode(status)

    def wait_for(self, leader):
        while True:
            pid, exit_code = self.wait()
            if pid == leader:
                return exit_code


def measure(steps, env, log):
    """Runs the commands to the end of everything they started; stops at the first that fails."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    sampler, usage, exit_code = TreeSampler(), Usage(), 0
    sampler.start()
    begin = time.monotonic()
    for argv, rename in steps:
        leader = os.posix_spawnp(
            argv[0], argv, env, file_actions=actions, setsigdef=[signal.SIGPIPE]
        )
        exit_code = usage.wait_for(leader)
        if exit_code != 0:
            break
        if rename:
            os.rename(*rename)
    wall = time.monotonic() - begin
    while usage.wait():
        pass
    drain = time.monotonic() - begin
    sampler.ended.set()
    sampler.join()
    return {
        "exit_code": exit_code,
        "wall_s": wall,
        "drain_s": drain,
        "cpu_s": usage.cpu,
        "largest_rss": usage.largest,
        # Between two samples a short command can come and go: its largest process is known.
        "tree_rss": max(sampler.peak, usage.largest),
    }


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # A killed bench must not leave a running tool behind.
    signal.signal(signal.SIGTERM, lambda *_: (kill_descendants(), sys.exit(143)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = measure(request["steps"], request["env"], request["log"])
        except OSError as error:
            answer = {"exit_code": 127, "error": str(error)}
        print(json.dumps(answer), flush=True)


def kill_descendants():
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # It ended meanwhile.


if __name__ == "__main__":
    main()
