"""The machine's own limits: what a tool would take that did one part of the work and no more.

Not here: any tool that is compared.
"""

import mmap
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, field

from machine import BenchError
from pieces import bare_put
from s3 import PART_BYTES
from tools import JOBS

SAMPLE_BYTES_MAX = 512 << 20


@dataclass
class Limit:
    """One kind of work alone, over so many bytes."""

    title: str
    bytes: int
    # What the bars call it.
    key: str | None = None
    walls: list = field(default_factory=list)
    cpus: list = field(default_factory=list)
    problem: str | None = None


def database_files(pgdata):
    """(path, size) of all regular files of a data directory, WAL left out."""
    found = []
    for folder, folders, names in os.walk(pgdata):
        if folder == pgdata:
            folders.remove("pg_wal")
        for name in names:
            path = os.path.join(folder, name)
            found.append((path, os.lstat(path).st_size))
    return found


def make_sample(files, total, path):
    """One file with the same share of each large file, small enough to stay in memory."""
    large = [(name, size) for name, size in files if size >= 1 << 20]
    share = min(1.0, SAMPLE_BYTES_MAX / total)
    with open(path, "wb") as sample:
        for name, size in large:
            with open(name, "rb") as file:
                sample.write(file.read(int(size * share)))
    return os.path.getsize(path)


def measure_limits(bench, dropper, servers, restores):
    """All limits, in the order of the table; `restores`: the runs of ours that were restored."""
    files = database_files(bench.cluster.pgdata)
    total = sum(size for _, size in files)
    sample = f"{bench.scratch}/sample"
    size = make_sample(files, total, sample)
    rounds = min(3, bench.options.rounds)
    limits = read_limits(bench, dropper, files, total, rounds)
    limits += compress_limits(bench, sample, size, rounds)
    limits += transfer_limits(bench, sample, size, servers, rounds)
    limits.append(fsync_limit(bench, sample, size, rounds))
    limits += [restore_limit(bench, run, total, rounds) for run in restores]
    start = Limit("start and end a program that does nothing", 0)
    shell(bench, start, "true", 20, direct=True)
    os.remove(sample)
    return total, limits + [start]


def shell(bench, limit, script, rounds, direct=False, before=None):
    """Measures a shell script; a slow one is not repeated."""
    argv = [shutil.which(script)] if direct else ["sh", "-c", script]
    for _ in range(rounds):
        if before:
            before()
        sample = bench.worker.measure([[argv, None]], {"PATH": os.environ["PATH"]})
        limit.walls.append(sample["wall_s"])
        limit.cpus.append(sample["cpu_s"])
        if sample["wall_s"] > 20:
            break
    return limit


def read_limits(bench, dropper, files, total, rounds):
    listing = f"{bench.scratch}/files"
    with open(listing, "w") as file:
        file.write("".join(f"{path}\0" for path, _ in files))
    script = f"xargs -0 cat <{listing} >/dev/null"
    warm = shell(bench, Limit("read only, page cache warm", total, "read"), script, rounds)
    if not dropper.drop():
        return [warm]
    cold = Limit("read only, page cache dropped", total)
    return [shell(bench, cold, script, rounds, before=dropper.drop), warm]


def compress_limits(bench, sample, size, rounds):
    python = f"{bench.options.cache}/barman/bin/python"
    snappy = "import snappy, sys; snappy.stream_compress(sys.stdin.buffer, sys.stdout.buffer)"
    commands = {
        "gzip:9": ["gzip", "-9", "-c"],
        "gzip:6": ["gzip", "-6", "-c"],
        "lz4:1": ["lz4", "-q", "-1", "-c"],
        "zstd:1": ["zstd", "-q", "-1", "--single-thread", "-c"],
        "snappy": [python, "-c", snappy],
    }
    limits = []
    for word, argv in commands.items():
        source = os.path.basename(argv[0]) if word != "snappy" else "python-snappy"
        limit = Limit(f"compress only, one core, {word} ({source})", size)
        limits.append(limit)
        if shutil.which(argv[0]) is None:
            limit.problem = f"{argv[0]} is not installed"
            continue
        shell(bench, limit, f"{shlex.join(argv)} <{sample} >/dev/null", rounds)
    return limits


def transfer_limits(bench, sample, size, servers, rounds):
    """PUT and GET by bare requests of this process."""
    limits = []
    with open(sample, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        parts = [
            lambda begin=begin: memory[begin : begin + PART_BYTES]
            for begin in range(0, size, PART_BYTES)
        ]
        for server in servers:
            way = f"{server.transport}, {JOBS} connections"
            # Over TLS no tool signs bodies.
            is_signed = server.transport == "http"
            put = Limit(f"PUT only, parts of 8 MiB, {way}", size, f"put-parts-{server.transport}")
            get = Limit(f"GET only, ranges of 8 MiB, {way}", size)
            signed = Limit(f"PUT only, parts of 8 MiB, bodies signed, {way}", size)
            signed.key = f"put-signed-{server.transport}"
            for _ in range(rounds):
                timed(put, lambda: server.bucket.put_parts("limit", parts, JOBS))
                if is_signed:
                    timed(signed, lambda: server.bucket.put_parts("limit", parts, JOBS, True))
                timed(get, lambda: server.bucket.get_parts("limit", size, JOBS))
            server.bucket.delete_all("limit")
            title = f"PUT only, one segment, new connection, {server.transport}"
            one = Limit(title, 16 << 20, f"put-one-{server.transport}")
            puts = bench.bare_puts if server.transport == "http" else []
            puts = puts or [bare_put(server.bucket, bench.segments[0]) for _ in range(20)]
            one.walls, one.cpus = zip(*puts)
            limits += [put, signed, get, one] if is_signed else [put, get, one]
    return limits


def timed(limit, act):
    begin, cpu = time.monotonic(), time.process_time()
    act()
    limit.walls.append(time.monotonic() - begin)
    limit.cpus.append(time.process_time() - cpu)


def fsync_limit(bench, sample, size, rounds):
    target = f"{bench.scratch}/written"
    script = f"cp --reflink=never {sample} {target} && sync {target}"

    def before():
        if os.path.exists(target):
            os.remove(target)
        os.sync()

    limit = Limit("write and fsync only, one file", size)
    shell(bench, limit, script, rounds, before=before)
    os.remove(target)
    return limit


def restore_limit(bench, run, total, rounds):
    """What a restore cannot go without: GET, decompress, write, and all of it on the disk."""
    codec = run.compression.partition(":")[0]
    words = {"none": "", "gzip": "gzip -dc, ", "zstd": "zstd -dc, ", "lz4": "lz4 -dc, "}
    way = f"{run.tool.minio.transport}, {JOBS} connections"
    limit = Limit(f"GET, {words[codec]}write and sync, {run.compression}, {way}", total)
    if run.tool.minio.transport == "http":
        limit.key = f"restore-{codec}"
    bucket, folder = run.tool.minio.bucket, f"{bench.scratch}/limit"
    archive = f"base-{run.archive}"
    prefix = run.tool.base_prefix(archive) + run.tool.last_backup(archive)
    keys = [key for key, _ in bucket.list(f"{prefix}/") if "/data" in key]
    command = words[codec].rstrip(", ").split()
    for _ in range(rounds):
        os.mkdir(folder)
        os.sync()

        def fetch():
            bucket.in_parallel(lambda *item: fetch_one(bucket, command, folder, item), keys, JOBS)
            subprocess.run(["sync", "-f", folder], check=True)

        timed(limit, fetch)
        shutil.rmtree(folder)
    limit.cpus = []  # That of the children is not in it.
    return limit


def fetch_one(bucket, command, folder, item):
    connection, key = item
    with open(f"{folder}/{os.path.basename(key)}", "wb", buffering=0) as target:
        if not command:
            bucket.get_into(connection, key, target.write)
            return
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=target) as process:
            bucket.get_into(connection, key, process.stdin.write)
            process.stdin.close()
        if process.returncode != 0:
            raise BenchError(f"{' '.join(command)}: exit code {process.returncode}")
