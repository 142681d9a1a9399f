"""The pieces of work, and the rounds in which the tools take turns at them.

A group sets runs of Cellarman beside one peer with the same codec on the same transport. A round
goes once through a group; every other round goes backwards, so that nobody always comes second.

Not here: command lines (tools.py), tables (report.py).
"""

import os
import shutil
import sys
import time
from dataclasses import dataclass, field

from machine import BenchError, CommandError
from tools import Barman, Cellarman, PgBackRest

# A pair with a run that takes longer than this is done twice, and again at the end while there
# is time.
SLOW_S = 60


@dataclass
class Run:
    """One tool with one compression, and what came out of it."""

    tool: object
    compression: str
    label: str
    problem: str | None = None
    samples: list = field(default_factory=list)
    stored: int | None = None

    @property
    def archive(self):
        return self.compression.replace(":", "-")


@dataclass
class Group:
    """Runs of ours and of one peer that are compared."""

    ours: list
    peer: Run

    @property
    def runs(self):
        return [*self.ours, self.peer]

    def in_turn(self, round_number):
        return self.runs if round_number % 2 == 0 else self.runs[::-1]

    def is_slow(self):
        last = [run.samples[-1]["wall_s"] for run in self.runs if run.samples and not run.problem]
        return max(last, default=0) > SLOW_S

    def round_s(self):
        """How long one more round will take, with what is around it."""
        return sum(run.samples[-1]["wall_s"] for run in self.runs if run.samples) * 1.2 + 5


@dataclass
class Bench:
    """What a piece of work works with."""

    options: object
    worker: object
    cluster: object
    tools: list
    segments: list
    scratch: str
    # Bare PUTs of one segment, (wall, CPU), taken in between ours.
    bare_puts: list = field(default_factory=list)
    # (group, its next round, what is done in it), for the end.
    put_off: list = field(default_factory=list)

    def tool(self, kind, transport):
        return next(t for t in self.tools if isinstance(t, kind) and t.minio.transport == transport)

    def group(self, kind, compression, base_backup=False, extra=()):
        """Cellarman beside a peer, at the peer's level; `extra`: more levels of Cellarman's."""
        transport = "http" if kind is Barman else "tls"
        ours, peer = self.tool(Cellarman, transport), self.tool(kind, transport)
        codec = compression.partition(":")[0]
        if base_backup and kind is Barman:
            compression = Barman.fixed_level.get(codec, compression)
        runs = [Run(ours, level, f"{ours.name} {level}") for level in (compression, *extra)]
        theirs = Run(peer, compression, f"{peer.name} {compression}")
        for run in (*runs, theirs):
            run.problem = run.tool.missing()
        return Group(runs, theirs)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def take_turns(bench, groups, rounds, act):
    """Calls `act(run, round)` for each; a run that fails is reported and left out from then on."""
    waiting = set()
    for round_number in range(rounds):
        for index, group in enumerate(groups):
            if round_number >= 2 and group.is_slow():
                if index not in waiting:
                    bench.put_off.append((group, round_number, act))
                waiting.add(index)
            elif index not in waiting:
                take_one_turn(group, round_number, act)
        say(f"{act.__name__}: round {round_number + 1} of {rounds} is done")


def take_one_turn(group, round_number, act):
    for run in group.in_turn(round_number):
        if run.problem:
            continue
        try:
            act(run, round_number)
        except (BenchError, CommandError) as error:
            run.problem = f"failed: {error}"
            say(f"{run.label}: {run.problem}")


def catch_up(bench, deadline):
    """The rounds that were put off, as many of them as end before the deadline."""
    for round_number in range(2, bench.options.rounds):
        for group, begin, act in bench.put_off:
            if round_number < begin:
                continue
            if time.monotonic() + group.round_s() > deadline:
                say(f"{group.peer.label}: no time for round {round_number + 1}")
                continue
            take_one_turn(group, round_number, act)
            say(f"{act.__name__}, {group.peer.label}: round {round_number + 1} is done")


def pg_wal(bench, folder):
    """An empty pg_wal, in as much of a data directory as the tools look at."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(f"{folder}/pg_wal/archive_status")
    os.mkdir(f"{folder}/global")
    for name in ("PG_VERSION", "global/pg_control"):
        shutil.copy(f"{bench.cluster.pgdata}/{name}", f"{folder}/{name}")
    return f"{folder}/pg_wal"


def make_ready(folder, segment):
    """Puts a segment into a pg_wal as PostgreSQL does when it is full: (path, its .ready file)."""
    name = os.path.basename(segment)
    path, ready = f"{folder}/{name}", f"{folder}/archive_status/{name}.ready"
    os.link(segment, path)
    with open(ready, "w"):
        return path, ready


def step(argv, ready=None):
    """For the worker: the command, and the archiver's mark that it succeeded."""
    return [argv, [ready, ready.removesuffix(".ready") + ".done"] if ready else None]


def bare_put(bucket, path):
    """(wall, CPU) of putting this file by one request on a new connection."""
    with open(path, "rb") as file:
        body = file.read()
    begin, cpu = time.monotonic(), time.process_time()
    bucket.request("PUT", "segment", body=body)
    return time.monotonic() - begin, time.process_time() - cpu


def archive_one_segment(bench):
    """One 16 MiB segment by a cold command, nothing else waiting."""
    small = bench.options.small
    barman = ["none", "zstd:1"] if small else ["none", "gzip:6", "snappy", "lz4:0", "zstd:1"]
    pgbackrest = ["zstd:1"] if small else ["gzip:6", "lz4:1", "zstd:1"]
    groups = [bench.group(Barman, word) for word in barman]
    groups += [bench.group(PgBackRest, word) for word in pgbackrest]
    repeats = 1 if small else 4

    def one_segment(run, round_number):
        archive, tool = f"wal-{run.archive}", run.tool
        folder = f"{bench.scratch}/one-{tool.key}-{run.archive}"
        if round_number == 0:
            tool.prepare_archive(archive)
            folder = pg_wal(bench, folder)
            segments = bench.segments[: repeats + 1]
        else:
            folder = f"{folder}/pg_wal"
            segments = bench.segments[round_number * repeats + 1 :][:repeats]
        for segment in segments:
            path, ready = make_ready(folder, segment)
            argv = tool.archive_argv(archive, run.compression, path)
            if run.compression == "none" and isinstance(tool, Cellarman):
                bench.bare_puts.append(bare_put(tool.minio.bucket, path))
            sample = bench.worker.measure([step(argv, ready)], tool.env)
            os.remove(path)
            # The first one founds the archive: it is no measure of the others.
            if segment != bench.segments[0]:
                run.samples.append(sample)
        run.stored = tool.stored(tool.wal_prefix(archive)) // (len(run.samples) + 1)

    take_turns(bench, groups, bench.options.rounds, one_segment)
    return groups


def archive_backlog(bench, count):
    """So many segments waiting, as after an outage: Barman takes one a call, the others look ahead."""
    groups = [bench.group(kind, "zstd:1") for kind in (Barman, PgBackRest)]

    def backlog(run, round_number):
        tool, archive = run.tool, f"backlog-{run.archive}-{round_number}"
        tool.prepare_archive(archive)
        folder = pg_wal(bench, f"{bench.scratch}/backlog")
        waiting = [make_ready(folder, segment) for segment in bench.segments[:count]]
        jobs = {} if isinstance(tool, Barman) else {"jobs": 2}
        steps = [
            step(tool.archive_argv(archive, run.compression, path, **jobs), ready)
            for path, ready in waiting
        ]
        run.samples.append(bench.worker.measure(steps, tool.env))
        run.stored = tool.stored(tool.wal_prefix(archive))
        stored = [key for key, _ in tool.minio.bucket.list(tool.wal_prefix(archive))]
        lost = [path for path, _ in waiting if not any(os.path.basename(path) in k for k in stored)]
        if lost:
            raise CommandError(f"{len(lost)} segments are not in the archive, such as {lost[0]}")
        tool.minio.bucket.delete_all(f"{tool.name.lower()}/{archive}/")

    take_turns(bench, groups, bench.options.rounds, backlog)
    return groups


def back_up(bench):
    """A base backup of the quiet database, its WAL archived by the same tool."""
    if bench.options.small:
        plan = [(Barman, "lz4", ()), (PgBackRest, "zstd:1", ())]
    else:
        plan = [(Barman, "none", ()), (Barman, "gzip", ()), (Barman, "snappy", ())]
        plan += [(Barman, "lz4", ()), (PgBackRest, "zstd:1", ())]
    groups = [bench.group(kind, word, True, extra) for kind, word, extra in plan]

    def base_backup(run, round_number):
        archive, tool = f"base-{run.archive}", run.tool
        if round_number == 0:
            tool.prepare_archive(archive)
        else:
            tool.forget_backups(archive)
        argv = tool.backup_argv(archive, run.compression)
        bench.cluster.archive_by(tool.archive_script(archive, run.compression))
        try:
            bench.cluster.settle()
            os.sync()
            run.samples.append(bench.worker.measure([step(argv)], tool.backup_env()))
        finally:
            bench.cluster.archive_by(None)
        run.stored = tool.stored(f"{tool.base_prefix(archive)}{tool.last_backup(archive)}/")

    take_turns(bench, groups, bench.options.rounds, base_backup)
    return groups


def bytes_below(folder):
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
    )


def restore(bench, backups):
    """What was backed up into an empty directory, on the disk when the command returns."""
    groups = [
        Group([fresh(run) for run in group.ours[:1]], fresh(group.peer))
        for group in backups
        if bench.options.small or group.peer.compression in ("none", "gzip:9", "zstd:1")
    ]
    # Indexes and tables do not change size after the load: a restore must bring back as much.
    expected = bytes_below(f"{bench.cluster.pgdata}/base")

    def restored(run, _):
        archive, tool = f"base-{run.archive}", run.tool
        folder = f"{bench.scratch}/restored"
        backup = tool.last_backup(archive)
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder, 0o700)
        os.sync()
        argv = tool.restore_argv(archive, backup, folder)
        run.samples.append(bench.worker.measure([step(argv)], tool.env))
        found = bytes_below(f"{folder}/base")
        shutil.rmtree(folder)
        # A process working in the database writes its cache of the catalogue, pg_internal.init.
        if abs(found - expected) > 4 << 20:
            raise CommandError(f"{found} bytes were restored below base/, not {expected}")

    take_turns(bench, groups, bench.options.rounds, restored)
    return groups


def fresh(run):
    """The same run before its first sample, if there is a backup of its."""
    problem = run.problem and f"no backup: {run.problem.removeprefix('failed: ')}"
    return Run(run.tool, run.compression, run.label, problem, stored=run.stored)


def set_up(bench):
    """Prepares every tool that is there."""
    for tool in bench.tools:
        reason = tool.missing()
        if reason:
            say(f"{tool.name} ({tool.minio.transport}) is not run: {reason}")
        else:
            tool.set_up()
    if bench.tools[0].missing():
        raise BenchError(bench.tools[0].missing())
