"""Runs each command over a large archive and prints what it took and what it asked for.

Not here: the archive (`archive`), the server over it (`server`), measuring (`../peers/measure.py`).
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "peers"))

from archive import SERVER, Archive  # noqa: E402
from machine import CommandError, Worker  # noqa: E402
from report import MIB, Report, seconds  # noqa: E402

RSS_MAX = 96 * MIB
HEADER = "| Command | Wall | CPU | Peak RSS | Requests |\n|---|--:|--:|--:|---|"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cellarman", required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--backups", type=int)
    parser.add_argument("--wal", type=int)
    parser.add_argument("--local-backups", type=int)
    parser.add_argument("--local-wal", type=int)
    parser.add_argument("--out")
    parser.add_argument("--scratch", default="/var/tmp")
    given = parser.parse_args()
    usual = (100, 10_000, 100, 2_000) if given.small else (10_000, 1_000_000, 2_000, 50_000)
    for name, value in zip(("backups", "wal", "local_backups", "local_wal"), usual):
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


class Bench:
    """One archive on one store."""

    def __init__(self, given, worker, report):
        self.given, self.worker, self.report = given, worker, report
        self.failures = 0

    def commands(self, archive):
        """(what, arguments) in the order in which they run. What changes the archive comes last."""
        one = archive.backup_id(archive.backups // 2)
        window = ["--retention", "1d"]
        commands = [
            ("`backup list`, no cache yet", ["backup", "list"]),
            ("`backup list`", ["backup", "list"]),
            ("`backup list --json`", ["--json", "backup", "list"]),
            ("`backup show` of an id", ["backup", "show", one]),
            ("`backup show` of a name", ["backup", "show", f"nightly-{archive.backups // 2}"]),
        ]
        if self.knows("expire"):
            commands += [
                ("`expire --dry-run`", ["expire", *window, "--dry-run"]),
                ("`expire`", ["expire", *window]),
                ("`expire` again", ["expire", *window]),
                ("`backup list` after it", ["backup", "list"]),
            ]
        return commands

    def knows(self, command):
        asked = [self.given.cellarman, command, "--help"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def run(self, title, archive, place, env, take_requests):
        """Runs all commands; `take_requests` tells what the last one asked for, in words."""
        self.report.emit(f"\n### {title}\n\n{HEADER}")
        take_requests()
        base = [self.given.cellarman, "--server", SERVER, *place]
        for what, command in self.commands(archive):
            try:
                sample = self.worker.measure([([*base, *command], None)], env)
            except CommandError as error:
                self.failures += 1
                self.report.emit(f"| {what} | failed: {str(error).splitlines()[0]} | | | |")
                continue
            self.report.emit(
                f"| {what} | {seconds(sample['wall_s'])} | {seconds(sample['cpu_s'])} "
                f"| {sample['largest_rss'] / MIB:.1f} MiB | {take_requests()} |"
            )
            if sample["largest_rss"] > RSS_MAX:
                self.failures += 1
                self.report.emit("\nThat is more than 96 MiB.\n")


@contextlib.contextmanager
def served(backups, segments):
    """The made-up server; yields its URL."""
    argv = [sys.executable, "-B", os.path.join(HERE, "server.py"), str(backups), str(segments)]
    # Object hashes are the server's etags: the same in each run.
    env = os.environ | {"PYTHONHASHSEED": "1"}
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.kill()
        server.wait()


def behind_server(bench, given, env):
    archive = Archive(given.backups, given.wal)
    with served(given.backups, given.wal) as endpoint:

        def take():
            with urllib.request.urlopen(f"{endpoint}/requests") as answer:
                counts = json.load(answer)
            return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))

        keys = {"AWS_ACCESS_KEY_ID": "scale", "AWS_SECRET_ACCESS_KEY": "scale"}
        keys |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        title = f"S3: {given.backups:,} backups, {given.wal:,} WAL files"
        place = ["--store", "s3://bucket/", "--endpoint-url", endpoint]
        bench.run(title, archive, place, env | keys, take)


def in_directory(bench, given, env, scratch):
    archive = Archive(given.local_backups, given.local_wal)
    root = os.path.join(scratch, "store")
    for number in range(archive.backups):
        for key, content, put in archive.objects(number):
            write(root, key, content if isinstance(content, bytes) else b"tar", put)
    write(root, *archive.history())
    for key, put in archive.wal_keys():
        write(root, key, b"", put)
    title = f"A directory: {given.local_backups:,} backups, {given.local_wal:,} WAL files"
    bench.run(title, archive, ["--store", root], env, lambda: "–")


def write(root, key, content, put):
    path = os.path.join(root, key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, (put.timestamp(), put.timestamp()))


def main():
    given = arguments()
    scratch = tempfile.mkdtemp(prefix="cellarman-scale-", dir=given.scratch)
    out = open(given.out, "w") if given.out else None
    try:
        worker = Worker(scratch)
        worker.start()
        bench = Bench(given, worker, Report(out))
        env = {"PATH": os.environ["PATH"], "HOME": scratch}
        behind_server(bench, given, env)
        in_directory(bench, given, env, scratch)
        return 1 if bench.failures else 0
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
