"""What the sidecar costs: an archived segment beside a bare PUT of the same bytes, and memory.

Started by run.sh, which says what the options mean.

Not here: the machine (../peers/machine.py) and the sidecar's process (sidecar.py).
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
from statistics import median

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../peers")

import machine  # noqa: E402
from bench import postgresql  # noqa: E402
from pieces import make_ready  # noqa: E402
from report import MIB, Report, seconds  # noqa: E402
from sidecar import Sidecar, cluster, compile_protocol, object_store  # noqa: E402

PIECES = ("archive", "burst", "growth", "backup", "restore")
CODECS = ("none", "gzip", "lz4", "zstd")
SEGMENT = 16 << 20


def options():
    parser = argparse.ArgumentParser(prog="benches/sidecar/run.sh")
    parser.add_argument("--scale", type=int, default=None, help="of pgbench (default 140: 2 GB)")
    parser.add_argument("--segments", type=int, default=None, help="of the long run (2000)")
    parser.add_argument("--small", action="store_true", help="a smoke test of some seconds")
    parser.add_argument("--out", help="write the tables to this file as well")
    parser.add_argument("--scratch", default="/var/tmp", help="where the servers' files go")
    parser.add_argument("--pieces", default=",".join(PIECES), help="some of: %(default)s")
    parser.add_argument("--plugin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cache", required=True, help=argparse.SUPPRESS)
    found = parser.parse_args()
    found.scale = found.scale or (5 if found.small else 140)
    found.segments = found.segments or (20 if found.small else 2000)
    found.pool = 8 if found.small else 40
    found.pieces = found.pieces.split(",")
    if unknown := set(found.pieces) - set(PIECES):
        parser.error(f"unknown pieces: {', '.join(unknown)}")
    return found


class Bars:
    """The promises, each met or missed."""

    def __init__(self):
        self.rows = []

    def at_most(self, what, seen, most, text):
        self.rows.append((what, text(seen), text(most), seen <= most))

    def print(self, report):
        report.emit("\n| Bar | Seen | At most | |\n|---|--:|--:|---|")
        for what, seen, most, is_met in self.rows:
            report.emit(f"| {what} | {seen} | {most} | {'met' if is_met else 'MISSED'} |")
        return all(row[3] for row in self.rows)


def size(count):
    return f"{count / MIB:.1f} MiB"


class Bench:
    """The servers, and one piece after another."""

    def __init__(self, opts, scratch):
        self.opts, self.scratch = opts, scratch
        self.minio = machine.Minio(f"{opts.cache}/bin/minio", scratch, "http")
        self.cluster = machine.Cluster(postgresql(), scratch)
        self.bars = Bars()
        self.segments = []

    def sidecar(self, name, compression, jobs, server=None, mode="instance", pgdata=None):
        documents = object_store(compression, jobs, self.minio.endpoint)
        primary = "" if mode == "restore" else "bench-1"
        documents.append(cluster(server or name, primary, recovers=mode == "restore"))
        env = {"PGDATA": pgdata or self.data_directory(name)}
        env |= {"PGHOST": self.cluster.sockets, "PGPORT": "5432", "PGUSER": "postgres"}
        found = Sidecar(f"{self.scratch}/cellarman-plugin", f"{self.scratch}/{name}", documents, env)
        found.mode = mode
        return found

    def data_directory(self, name):
        """As much of a data directory as archiving looks at."""
        folder = f"{self.scratch}/{name}-pgdata"
        os.makedirs(f"{folder}/pg_wal/archive_status")
        os.mkdir(f"{folder}/global")
        for file in ("PG_VERSION", "global/pg_control"):
            shutil.copy(f"{self.cluster.pgdata}/{file}", f"{folder}/{file}")
        return folder


def archive(sidecar, path, ready=None):
    """Archives one file and does what PostgreSQL does next; the seconds of the call."""
    import wal_pb2

    request = wal_pb2.WALArchiveRequest(
        cluster_definition=sidecar.definition, source_file_name=path, check_empty_wal_archive=False
    )
    took, _ = sidecar.call("/cnpgi.wal.v1.WAL/Archive", request, wal_pb2.WALArchiveResult)
    if ready:
        os.rename(ready, ready.removesuffix(".ready") + ".done")
    os.remove(path)
    return took


def one_by_one(bench, report):
    """Each segment by itself, beside a bare PUT of the same bytes on a kept connection."""
    report.emit("\n### One segment at a time, the sidecar warm\n")
    report.emit("A bare PUT leaves its body unsigned; a signed one is what S3 clients do over plain HTTP, as the sidecar.\n")
    report.emit("| Codec | Segments | Call, p50 | Longest | Bare PUT, p50 | Signed PUT, p50 | CPU each | RSS, peak |")
    report.emit("|---|--:|--:|--:|--:|--:|--:|--:|")
    for codec in CODECS:
        sidecar = bench.sidecar(f"one-{codec}", codec, 1)
        sidecar.start()
        folder = f"{sidecar.env['PGDATA']}/pg_wal"
        connection = bench.minio.bucket.connect()
        calls, puts, signed, cpu = [], [], [], 0.0
        idle = sidecar.memory()[0]
        for number, segment in enumerate(bench.segments):
            with open(segment, "rb") as file:
                body = file.read()
            begin = time.monotonic()
            bench.minio.bucket.request("PUT", f"bare/{number % 2}", body=body, connection=connection)
            puts.append(time.monotonic() - begin)
            begin = time.monotonic()
            digest = hashlib.sha256(body).hexdigest()
            key = f"bare/{number % 2}"
            bench.minio.bucket.request("PUT", key, body=body, connection=connection, body_hash=digest)
            signed.append(time.monotonic() - begin)
            path, ready = make_ready(folder, segment)
            before = sidecar.cpu()
            took = archive(sidecar, path, ready)
            # The first one founds the archive.
            if number > 0:
                calls.append(took)
                cpu += sidecar.cpu() - before
        connection.close()
        peak = sidecar.memory()[1]
        sidecar.stop()
        each = cpu / len(calls)
        report.emit(
            f"| {codec} | {len(calls)} | {seconds(median(calls))} | {seconds(max(calls))} "
            f"| {seconds(median(puts))} | {seconds(median(signed))} | {seconds(each)} | {size(peak)} |"
        )
        bench.bars.at_most(f"RSS archiving one by one, {codec}", peak, 40 * MIB, size)
        if codec == "none":
            most = median(puts) + 0.020
            bench.bars.at_most("Archive call, none: bare PUT + 20 ms", median(calls), most, seconds)
            bench.bars.at_most("RSS when just started", idle, 40 * MIB, size)


def burst(bench, report):
    """Many segments wait; PostgreSQL asks for one after the other, maxParallel 8."""
    report.emit("\n### A burst, maxParallel 8\n")
    report.emit("| Codec | Segments | Wall | CPU | RSS, peak |\n|---|--:|--:|--:|--:|")
    for codec in CODECS:
        sidecar = bench.sidecar(f"burst-{codec}", codec, 8)
        sidecar.start()
        folder = f"{sidecar.env['PGDATA']}/pg_wal"
        waiting = [make_ready(folder, segment) for segment in bench.segments[:32]]
        before, begin = sidecar.cpu(), time.monotonic()
        for path, ready in waiting:
            archive(sidecar, path, ready)
        took, cpu = time.monotonic() - begin, sidecar.cpu() - before
        peak = sidecar.memory()[1]
        sidecar.stop()
        report.emit(f"| {codec} | {len(waiting)} | {seconds(took)} | {seconds(cpu)} | {size(peak)} |")
        bench.bars.at_most(f"RSS in a burst, {codec}", peak, 96 * MIB, size)


def growth(bench, report):
    """A long run of segments, each a copy of a real one under the next name."""
    sidecar = bench.sidecar("growth", "zstd", 1)
    sidecar.start()
    folder = f"{sidecar.env['PGDATA']}/pg_wal"
    with open(bench.segments[0], "rb") as file:
        content = bytearray(file.read(1 << 20)) + bytes(SEGMENT - (1 << 20))
    begun = int(os.path.basename(bench.segments[0])[8:16], 16) * 256
    begun += int(os.path.basename(bench.segments[0])[16:], 16)
    seen = []
    for number in range(bench.opts.segments):
        segment = begun + number
        # The address of the first page: xlp_pageaddr, at byte 8 of its header.
        content[8:16] = (segment * SEGMENT).to_bytes(8, "little")
        path = f"{folder}/00000001{segment // 256:08X}{segment % 256:08X}"
        with open(path, "wb") as file:
            file.write(content)
        archive(sidecar, path)
        if number % max(1, bench.opts.segments // 20) == 0:
            seen.append(sidecar.memory()[0])
    peak = sidecar.memory()[1]
    sidecar.stop()
    early, late = max(seen[len(seen) // 4 : len(seen) // 2]), max(seen[len(seen) // 2 :])
    report.emit(f"\n### {bench.opts.segments} segments, one after the other\n")
    report.emit("RSS along the way: " + ", ".join(size(one) for one in seen))
    bench.bars.at_most(f"RSS over {bench.opts.segments} segments", peak, 40 * MIB, size)
    bench.bars.at_most("RSS, second half of the run", late, early + 2 * MIB, size)


def backup(bench, report):
    """A base backup of the running server, whose WAL goes through the same sidecar."""
    import backup_pb2

    report.emit("\n### Base backup\n")
    report.emit("| Codec | Wall | CPU | RSS, peak |\n|---|--:|--:|--:|")
    for codec in ("none", "gzip", "zstd"):
        sidecar = bench.sidecar(f"backup-{codec}", codec, 8, pgdata=bench.cluster.pgdata)
        sidecar.start()
        program = f"{sys.executable} -B {bench.scratch}/archive.py {sidecar.socket} {sidecar.folder}"
        with open(f"{sidecar.folder}/definition", "wb") as file:
            file.write(sidecar.definition)
        bench.cluster.archive_by(f'exec {program} "$PWD/$1"')
        bench.cluster.settle()
        definition = b'{"metadata":{"name":"bench-backup","namespace":"bench","uid":"u"},"spec":{}}'
        request = backup_pb2.BackupRequest(
            cluster_definition=sidecar.definition, backup_definition=definition
        )
        sidecar.reset_peak()
        before = sidecar.cpu()
        took, answer = sidecar.call("/cnpgi.backup.v1.Backup/Backup", request, backup_pb2.BackupResult)
        cpu, peak = sidecar.cpu() - before, sidecar.memory()[1]
        if not answer.backup_id:
            raise machine.BenchError("the backup has no id")
        bench.cluster.archive_by(None)
        sidecar.stop()
        report.emit(f"| {codec} | {seconds(took)} | {seconds(cpu)} | {size(peak)} |")
        bench.bars.at_most(f"RSS in a backup, {codec}", peak, 96 * MIB, size)


def restore(bench, report):
    """The recovery job's call: a data directory from the backup just made."""
    import restore_job_pb2

    report.emit("\n### Restore\n")
    report.emit("| Codec | Wall | CPU | RSS, peak |\n|---|--:|--:|--:|")
    for codec in ("none", "gzip", "zstd"):
        pgdata = f"{bench.scratch}/restored-{codec}"
        sidecar = bench.sidecar(
            f"restore-{codec}", codec, 8, server=f"backup-{codec}", mode="restore", pgdata=pgdata
        )
        sidecar.start()
        before = sidecar.cpu()
        request = restore_job_pb2.RestoreRequest(cluster_definition=sidecar.definition)
        took, answer = sidecar.call(
            "/cnpgi.wal.v1.RestoreJobHooks/Restore", request, restore_job_pb2.RestoreResponse
        )
        cpu, peak = sidecar.cpu() - before, sidecar.memory()[1]
        if "restore_command" not in answer.restore_config:
            raise machine.BenchError("the restore gave no restore_command")
        sidecar.stop()
        shutil.rmtree(pgdata)
        report.emit(f"| {codec} | {seconds(took)} | {seconds(cpu)} | {size(peak)} |")
        bench.bars.at_most(f"RSS in a restore, {codec}", peak, 96 * MIB, size)


def main():
    opts = options()
    scratch = machine.make_scratch(opts.scratch)
    # The source tree may be out of reach for the user postgres.
    shutil.copy(opts.plugin, f"{scratch}/cellarman-plugin")
    shutil.copy(f"{HERE}/archive.py", scratch)
    root = os.path.realpath(f"{HERE}/../..")
    compile_protocol(root, scratch)
    out = open(opts.out, "w") if opts.out else None  # noqa: SIM115
    report = Report(out)
    machine.become_postgres(scratch)
    bench = Bench(opts, scratch)
    try:
        bench.minio.start()
        bench.cluster.create()
        bench.segments = bench.cluster.load(opts.scale, opts.pool, 2 if opts.small else 10)
        report.emit(f"# The sidecar\n\n- Machine: {machine.facts()}")
        report.emit(f"- Load average at the start: {os.getloadavg()[0]:.1f}")
        acts = dict(zip(PIECES, (one_by_one, burst, growth, backup, restore), strict=True))
        for piece in PIECES:
            if piece in opts.pieces:
                acts[piece](bench, report)
        report.emit(f"\n- Load average at the end: {os.getloadavg()[0]:.1f}")
        is_met = bench.bars.print(report)
    finally:
        bench.cluster.stop()
        bench.minio.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    try:
        main()
    except machine.BenchError as error:
        sys.exit(f"benches/sidecar: {error}")
