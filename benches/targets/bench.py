"""What the index of the WAL costs, and how fast targets are found through it.

Started by run.sh, which says what the options mean.

Not here: the machine (../peers/machine.py), measuring (../peers/measure.py).
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../peers")

import machine  # noqa: E402
from bench import postgresql  # noqa: E402
from report import MIB, Report, seconds  # noqa: E402

SERVER = "bench"
# A segment's worth of log: rows by many transactions, of which some are rolled back.
FILL = """
DO $$ BEGIN
  FOR i IN 1..{transactions} LOOP
    INSERT INTO filled SELECT n, md5(n::text) FROM generate_series(1, 30) n;
    IF i % 10 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
  END LOOP;
END $$
"""


def options():
    parser = argparse.ArgumentParser(prog="benches/targets/run.sh")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--segments", type=int)
    parser.add_argument("--build-segments", type=int)
    parser.add_argument("--out")
    parser.add_argument("--scratch", default="/var/tmp")
    parser.add_argument("--cellarman", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cache", required=True, help=argparse.SUPPRESS)
    found = parser.parse_args()
    found.segments = found.segments or (100 if found.small else 10_000)
    found.build_segments = found.build_segments or (20 if found.small else 1000)
    return found


class Bars:
    """The promises, each met or missed."""

    def __init__(self):
        self.rows = []

    def at_most(self, what, seen, most, text):
        self.rows.append((what, text(seen), f"at most {text(most)}", seen <= most))

    def at_least(self, what, seen, least, text):
        self.rows.append((what, text(seen), f"at least {text(least)}", seen >= least))

    def print(self, report):
        report.emit("\n| Bar | Seen | Wanted | |\n|---|--:|--:|---|")
        for what, seen, wanted, is_met in self.rows:
            report.emit(f"| {what} | {seen} | {wanted} | {'met' if is_met else 'MISSED'} |")
        return all(row[3] for row in self.rows)


class Counter:
    """A port that passes everything on to MinIO and counts requests; none of them has a body that
    looks like one."""

    def __init__(self, port):
        self.target, self.count = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pass_on, args=ends, daemon=True).start()

    def pass_on(self, source, sink, counts):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if counts:
                    self.count += piece.count(b" HTTP/1.1\r\n")
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def take(self):
        count, self.count = self.count, 0
        return count


class Archive:
    """A server that archives to MinIO by Cellarman, under a name of its own."""

    def __init__(self, opts, scratch, minio, name):
        self.opts, self.minio, self.name = opts, minio, name
        self.folder = f"{scratch}/{name}"
        os.mkdir(self.folder)
        self.program = f"{scratch}/cellarman"
        self.cluster = machine.Cluster(postgresql(), self.folder)
        self.keys = {"AWS_ACCESS_KEY_ID": machine.USER, "AWS_SECRET_ACCESS_KEY": machine.PASSWORD}
        self.keys |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    def command(self, arguments, port=None):
        endpoint = f"http://127.0.0.1:{port or self.minio.port}"
        place = ["--server", SERVER, "--store", f"s3://{machine.BUCKET}/{self.name}"]
        return [self.program, *place, "--endpoint-url", endpoint, *arguments]

    def environment(self):
        return self.cluster.env | self.keys | {"HOME": self.folder}

    def start(self, segment_mib):
        self.cluster.create(segment_mib)
        words = " ".join(self.command(["wal", "archive", "--compression", "zstd:1"]))
        settings = "\n".join(f"export {name}='{value}'" for name, value in self.keys.items())
        self.cluster.archive_by(f"{settings}\nexport HOME={self.folder}\nexec {words} \"$1\"")
        self.cluster.sql("CREATE TABLE filled (n int, text text)")
        # The first segment of all began in log that nobody archived: the backup comes after the
        # index object with it, as in any archive that has been there for a while.
        for _ in range(20):
            self.cluster.sql("INSERT INTO filled VALUES (0, ''); SELECT pg_switch_wal()")
        machine.run(self.command(["backup", "create"]), env=self.environment())

    def ask(self, arguments):
        ended = machine.run(self.command(["--json", *arguments]), env=self.environment())
        return json.loads(ended)

    def stored(self, part):
        """How many objects and bytes there are below a part of the server."""
        keys = self.minio.bucket.list(f"{self.name}/{SERVER}/{part}/")
        return len(keys), sum(size for _, size in keys)

    def wait_archived(self):
        self.cluster.settle()


def search(opts, archive, worker, report, bars):
    """Targets in a long log of small segments."""
    archive.start(1)
    cluster = archive.cluster
    script = f"{archive.folder}/switch.sql"
    with open(script, "w") as file:
        file.write("INSERT INTO filled VALUES (1, 'x');\nSELECT pg_switch_wal();\n")
    times = []
    for share in range(4):
        count = opts.segments // 4
        pgbench = [f"{cluster.programs}/pgbench", "-n", "-f", script, "-t", str(count)]
        machine.run(pgbench, env=cluster.env)
        times.append(cluster.sql("SELECT clock_timestamp()"))
        cluster.sql(f"SELECT pg_create_restore_point('share {share}')")
        xid = cluster.sql("INSERT INTO filled VALUES (2, 'y') RETURNING xmin")
        wait_long(cluster, opts.segments)
    wal, wal_bytes = archive.stored("wals")
    count, size = archive.stored("cellarman/index")
    report.emit(f"\n### Targets among {wal} WAL files, {count} index objects\n")
    report.emit("| Target | Wall | CPU | Peak RSS | Requests |\n|---|--:|--:|--:|--:|")
    asked = [
        ("the first backup's time", ["--time", times[0]]),
        ("a time in the middle", ["--time", times[1]]),
        ("a time near the end", ["--time", times[2]]),
        ("a restore point", ["--name", "share 1"]),
        ("a transaction", ["--xid", xid]),
        ("a name that is not there", ["--name", "nowhere"]),
        ("the window", []),
    ]
    counter = Counter(archive.minio.port)
    for what, words in asked:
        command = ["targets", *words]
        is_refused = words[1:] == ["nowhere"]
        sample = measure(worker, archive, command, is_refused)
        counter.take()
        argv = archive.command(command, counter.port)
        run_any(argv, archive.environment(), is_refused)
        requests = counter.take()
        report.emit(
            f"| {what} | {seconds(sample['wall_s'])} | {seconds(sample['cpu_s'])} "
            f"| {sample['largest_rss'] / MIB:.1f} MiB | {requests} |"
        )
        if words[:1] == ["--time"]:
            bars.at_most(f"`targets`, {what}", sample["wall_s"], 1.0, seconds)
            bars.at_most(f"requests, {what}", requests, 20, str)


def wait_long(cluster, segments):
    """Waits for the archiver: some 20 ms for each segment, many at once."""
    name = cluster.sql("SELECT pg_walfile_name(pg_switch_wal())")
    passed = f"SELECT coalesce(last_archived_wal >= '{name}', false) FROM pg_stat_archiver"
    machine.wait_until(f"{name} to be archived", lambda: cluster.sql(passed) == "t", 60 + segments)


def run_any(argv, env, is_refused):
    try:
        machine.run(argv, env=env)
    except machine.BenchError:
        if not is_refused:
            raise


def measure(worker, archive, command, is_refused=False):
    argv = archive.command(command)
    if is_refused:
        # Refusing is what it is to do.
        argv = ["/bin/sh", "-c", '"$@"; [ $? = 10 ]', "sh", *argv]
    return worker.measure([(argv, None)], archive.environment())


def build(opts, archive, worker, report, bars):
    """The index of large segments, made again from the archive."""
    archive.start(16)
    cluster = archive.cluster
    before = int(cluster.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))
    # About 0.75 MiB for each 100 transactions.
    while True:
        now = int(cluster.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))
        if now - before >= opts.build_segments * (16 << 20):
            break
        cluster.sql(FILL.format(transactions=2000))
        cluster.sql("TRUNCATE filled")
    wait_long(cluster, opts.build_segments)
    wal, wal_bytes = archive.stored("wals")
    made, made_bytes = archive.stored("cellarman/index")
    sample = measure(worker, archive, ["index", "build", "--rebuild"])
    built, built_bytes = archive.stored("cellarman/index")
    raw = wal * (16 << 20)
    report.emit(f"\n### `index build --rebuild` of {wal} WAL files of 16 MiB\n")
    report.emit("| Stored WAL | Index objects | Their size | Of the WAL | Wall | CPU | Cores | Peak RSS |")
    report.emit("|--:|--:|--:|--:|--:|--:|--:|--:|")
    cores = sample["cpu_s"] / sample["wall_s"]
    report.emit(
        f"| {wal_bytes / MIB:.0f} MiB | {built} | {built_bytes / 1024:.0f} KiB "
        f"| {100 * built_bytes / raw:.4f} % ({100 * built_bytes / wal_bytes:.3f} % as stored) "
        f"| {seconds(sample['wall_s'])} | {seconds(sample['cpu_s'])} | {cores:.2f} "
        f"| {sample['largest_rss'] / MIB:.1f} MiB |"
    )
    report.emit(f"\nMade while archiving: {made} objects of {made_bytes / 1024:.0f} KiB.")
    bars.at_most("RSS of `index build`", sample["largest_rss"], 96 * MIB, lambda n: f"{n / MIB:.1f} MiB")
    bars.at_most("index, share of the WAL", built_bytes / raw, 0.002, lambda n: f"{100 * n:.4f} %")
    bars.at_most("index objects for 16 segments", made * 16 / wal, 1.2, lambda n: f"{n:.2f}")
    # MinIO takes its part of the same cores.
    bars.at_least("cores kept busy by `index build`", cores, 1.2, lambda n: f"{n:.2f}")


def main():
    opts = options()
    scratch = machine.make_scratch(opts.scratch)
    # The source tree may be out of reach for the user postgres.
    shutil.copy(opts.cellarman, f"{scratch}/cellarman")
    out = open(opts.out, "w") if opts.out else None  # noqa: SIM115
    report, bars = Report(out), Bars()
    machine.become_postgres(scratch)
    minio = machine.Minio(f"{opts.cache}/bin/minio", scratch, "http")
    worker = machine.Worker(scratch)
    archives = []
    try:
        minio.start()
        worker.start()
        report.emit(f"# Targets\n\n- Machine: {machine.facts()}")
        report.emit(f"- Load average at the start: {os.getloadavg()[0]:.1f}")
        for act, name in ((search, "search"), (build, "build")):
            archives.append(Archive(opts, scratch, minio, name))
            act(opts, archives[-1], worker, report, bars)
            archives[-1].cluster.stop()
        report.emit(f"\n- Load average at the end: {os.getloadavg()[0]:.1f}")
        is_met = bars.print(report)
    finally:
        for archive in archives:
            archive.cluster.stop()
        worker.stop()
        minio.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    try:
        main()
    except (machine.BenchError, machine.CommandError) as error:
        sys.exit(f"benches/targets: {error}")
