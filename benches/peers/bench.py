"""Cellarman beside Barman Cloud and pgBackRest: one machine, one kind of server, rounds in turn.

Started by run.sh, which says what the options mean.

Not here: what is measured (pieces.py, limits.py) and on what (machine.py, tools.py).
"""

import argparse
import os
import shutil
import signal
import sys
import time
from datetime import datetime, timezone

import bars
import limits
import machine
import memory
import pieces
import report
import tools

PIECES = ("wal", "backup", "restore", "backlog", "memory", "limits")


def options():
    parser = argparse.ArgumentParser(prog="benches/peers/run.sh")
    parser.add_argument("--rounds", type=int, default=None, help="rounds (default 5; small: 1)")
    parser.add_argument("--scale", type=int, default=None, help="of pgbench (default 135: 2 GB)")
    parser.add_argument("--minutes", type=int, default=45, help="when no slow run is begun again")
    parser.add_argument("--small", action="store_true", help="a smoke test of some seconds")
    parser.add_argument("--out", help="write the tables to this file as well")
    parser.add_argument("--scratch", default="/var/tmp", help="where the servers' files go")
    parser.add_argument("--pieces", default=",".join(PIECES), help="some of: %(default)s")
    parser.add_argument("--cellarman", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cache", required=True, help=argparse.SUPPRESS)
    found = parser.parse_args()
    found.rounds = found.rounds or (1 if found.small else 5)
    found.scale = found.scale or (5 if found.small else 135)
    found.backlog = 4 if found.small else 200
    found.pieces = found.pieces.split(",")
    if unknown := set(found.pieces) - set(PIECES):
        parser.error(f"unknown pieces: {', '.join(unknown)}")
    if "restore" in found.pieces and "backup" not in found.pieces:
        parser.error("restore needs backup")
    return found


def postgresql():
    """The folder of the programs of PostgreSQL 15, or of the newest there is."""
    root = "/usr/lib/postgresql"
    versions = sorted(os.listdir(root), key=float) if os.path.isdir(root) else []
    versions = [version for version in versions if os.path.exists(f"{root}/{version}/bin/pgbench")]
    if not versions:
        raise machine.BenchError(f"no PostgreSQL in {root} (tests/servers.sh debian)")
    return f"{root}/{'15' if '15' in versions else versions[-1]}/bin"


def check_space(opts):
    """The archives, a restored copy and the sample take about six times the database."""
    needed = opts.scale * (16 << 20) * 6 + opts.backlog * (32 << 20)
    free = shutil.disk_usage(opts.scratch).free
    if free < needed:
        raise machine.BenchError(
            f"{opts.scratch} has {free >> 30} GiB free and the bench needs {needed >> 30} GiB: "
            "choose another by --scratch, or a smaller --scale"
        )


def introduction(bench, opts, programs):
    present = {tool.name: tool for tool in bench.tools if not tool.missing()}
    version = machine.run([f"{programs}/postgres", "--version"]).split()[2]
    size = bench.cluster.sql("SELECT sum(pg_database_size(oid)) FROM pg_database")
    words = [f"{tool.name} {tool.version().removeprefix('cellarman ')}" for tool in present.values()]
    absent = {tool.name: tool.missing() for tool in bench.tools if tool.missing()}
    lines = [
        "# Cellarman beside its peers\n",
        f"- Date: {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        f"- Machine: {machine.facts()}; load average at the start "
        + " ".join(f"{load:.1f}" for load in os.getloadavg()),
        f"- Tools: {', '.join(words)}; PostgreSQL {version} with data checksums",
        f"- Database: pgbench scale {opts.scale}, {int(size) / 2**20:.0f} MiB, changed by pgbench "
        "after its load, quiet while backed up; the page cache is warm",
        "- Store: MinIO on the loopback, on the same cores; http for Barman, TLS for pgBackRest "
        "(which has no other), Cellarman beside each on the same transport",
        f"- {opts.rounds} rounds, the tools in turn (a pair with a run over {pieces.SLOW_S} s: at least 2, more while "
        f"{opts.minutes} minutes are not over); medians, RSS the highest of all rounds; CPU and RSS of "
        "all processes of the command, with pages that processes share counted in each; servers not counted",
        f"- Parallelism: --jobs {tools.JOBS}, -J {tools.JOBS}, process-max={tools.JOBS}",
    ]
    lines += [f"- Not run: {name}: {reason}" for name, reason in absent.items()]
    return "\n".join(lines)


NOTES = {
    "wal": (
        "One 16 MiB WAL segment by a cold command",
        "Full of pgbench's changes, in the page cache, nothing else waiting; stored: per segment.",
    ),
    "backup": (
        "Base backup",
        "From the command's start to its end, the wait for the last WAL segment included. Barman's "
        "gzip level is 9 and cannot be changed. Barman does not verify page checksums; the others do.",
    ),
    "restore": (
        "Restore",
        "Into an empty directory, on the disk at the end: `sync -f` is added to Barman's time.",
    ),
    "backlog": (
        "Backlog of {} WAL segments",
        "One command per segment as PostgreSQL's archiver calls it; Cellarman with --jobs 2 and "
        "pgBackRest with archive-async look ahead, Barman cannot; stored: all of them.",
    ),
}


def run_pieces(bench, opts):
    """The pieces of work whose runs are compared: name to groups."""
    tables = {}
    if "wal" in opts.pieces:
        tables["wal"] = pieces.archive_one_segment(bench)
    if "backup" in opts.pieces:
        tables["backup"] = pieces.back_up(bench)
    if "restore" in opts.pieces:
        tables["restore"] = pieces.restore(bench, tables["backup"])
    if "backlog" in opts.pieces:
        tables["backlog"] = pieces.archive_backlog(bench, opts.backlog)
    return tables


def tables_text(tables, opts):
    texts = []
    for name, groups in tables.items():
        title, note = NOTES[name]
        texts.append(report.table(title.format(opts.backlog), note, groups))
    return "\n".join(texts)


def run_all(bench, opts, helpers, begin):
    """Everything that was asked for: (what is to be printed, what failed)."""
    dropper, limiter, servers = helpers
    tables = run_pieces(bench, opts)
    # For whoever waits, and in case the rest does not come to its end.
    print(tables_text(tables, opts), file=sys.stderr, flush=True)
    limited, found, total = None, [], 0
    if "memory" in opts.pieces:
        limited = memory.under_limit(bench, limiter, dropper)
    if "limits" in opts.pieces:
        restored = [group.ours[0] for group in tables.get("restore", ())]
        restored = [run for run in restored if run.samples and not run.problem]
        total, found = limits.measure_limits(bench, dropper, servers, restored)
    pieces.catch_up(bench, begin + opts.minutes * 60)
    texts = [tables_text(tables, opts)]
    if limited is not None:
        texts.append(report.limited_table(limited))
    if found:
        texts.append(report.limits_table(total, found))
    texts.append(report.bars_table(bars.judge(tables, found, total, limited)))
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    texts.append(f"\n{(time.monotonic() - begin) / 60:.0f} minutes; load average at the end {load}.")
    failed = report.failures(tables)
    failed += [
        f"memory: {result.label}: {result.problem}"
        for result in limited or ()
        if result.problem and result.problem.startswith("failed")
    ]
    return "\n".join(texts), failed


def end_by_signal(number, _):
    """Leaves by way of the clean-up."""
    pieces.say(f"ended by {signal.Signals(number).name}")
    sys.exit(128 + number)


def main():
    begin = time.monotonic()
    opts = options()
    check_space(opts)
    out = open(opts.out, "w", encoding="utf-8") if opts.out else None
    scratch = machine.make_scratch(opts.scratch)
    shutil.copy(opts.cellarman, f"{scratch}/cellarman")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end_by_signal)
    worker = machine.Worker(scratch)
    dropper, limiter = machine.CacheDropper(), memory.MemoryLimiter()
    minio = f"{opts.cache}/bin/minio"
    http, tls = (machine.Minio(minio, scratch, transport) for transport in ("http", "tls"))
    cluster, failed = None, []
    try:
        machine.become_postgres(scratch)
        programs = postgresql()
        worker.start()
        for server in (http, tls):
            server.start()
        cluster = machine.Cluster(programs, scratch)
        cluster.create()
        bench = pieces.Bench(opts, worker, cluster, [], [], scratch)
        bench.tools = tools.find_all(opts, http, tls, cluster, scratch)
        pieces.set_up(bench)
        pieces.say(f"filling the database, scale {opts.scale}")
        wanted = max(opts.backlog, opts.rounds * 4 + 1)
        bench.segments = cluster.load(opts.scale, wanted, 1 if opts.small else 5)
        paper = report.Report(out)
        paper.emit(introduction(bench, opts, programs))
        text, failed = run_all(bench, opts, (dropper, limiter, (http, tls)), begin)
        paper.emit(text)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        worker.stop()
        for server in (cluster, http, tls):
            if server:
                server.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    for text in failed:
        print(f"FAILED {text}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (machine.BenchError, machine.CommandError) as error:
        sys.exit(f"bench: {error}")
