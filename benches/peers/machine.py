"""What the bench runs on: a scratch directory, two MinIO servers, one PostgreSQL, the worker.

Everything listens on the loopback or a Unix socket, and ends with this process: each server is
stopped by its pid, and told by the kernel should we die first.

Not here: the tools that are compared.
"""

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from measure import PR_SET_PDEATHSIG
from s3 import Bucket

USER, PASSWORD, BUCKET = "cellarman", "only-for-this-bench", "bench"


class BenchError(Exception):
    """The bench itself cannot go on."""


class CommandError(Exception):
    """A measured command failed."""


class CacheDropper:
    """A child that stays root and empties the page cache on request."""

    def __init__(self):
        self.ours = None
        if os.geteuid() != 0:
            return
        self.ours, theirs = socket.socketpair()
        if os.fork() == 0:
            self.ours.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            while theirs.recv(1):
                os.sync()
                try:
                    with open("/proc/sys/vm/drop_caches", "w") as file:
                        file.write("3\n")
                    theirs.send(b"y")
                except OSError:
                    theirs.send(b"n")
            os._exit(0)
        theirs.close()

    def drop(self):
        """Whether the cache is now empty."""
        if self.ours is None:
            return False
        self.ours.send(b"d")
        return self.ours.recv(1) == b"y"


def become_postgres(scratch):
    """PostgreSQL does not run as root; from here on nothing of ours does."""
    if os.geteuid() != 0:
        return
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        raise BenchError("run as root, the bench needs a user named postgres") from None
    for folder, _, files in os.walk(scratch):
        for path in [folder, *(os.path.join(folder, file) for file in files)]:
            os.chown(path, account.pw_uid, account.pw_gid)
    os.setgroups([account.pw_gid])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def die_with_parent(with_signal):
    """For a child between fork and exec: what the kernel sends it when we are gone."""
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, with_signal, 0, 0, 0)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise BenchError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def run(argv, env=None, stdin=None):
    """Runs a command of the bench's own; its output, or an error that holds it."""
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


class Worker:
    """The process that runs and measures; see measure.py."""

    def __init__(self, scratch):
        # The source tree may be out of reach for the user postgres.
        program = os.path.join(scratch, "measure.py")
        shutil.copy(os.path.join(os.path.dirname(__file__), "measure.py"), program)
        self.program, self.process = program, None
        self.log = os.path.join(scratch, "commands.log")

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-BI", self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, steps, env):
        """Runs (argv, rename) steps; raises if one fails, with the end of its output."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.log)
        request = {"steps": steps, "env": env, "log": self.log}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if answer["exit_code"] != 0:
            with contextlib.suppress(FileNotFoundError), open(self.log, errors="replace") as file:
                answer["error"] = file.read()[-1500:].strip()
            last_line = (answer.get("error") or "no output").splitlines()[-1]
            raise CommandError(
                f"exit code {answer['exit_code']}: {last_line}\n"
                f"{' '.join(steps[0][0])}\n{answer.get('error')}"
            )
        return answer

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


class Minio:
    """One MinIO with one bucket, by http or by TLS with a CA made for this run."""

    def __init__(self, program, scratch, transport):
        self.program, self.transport = program, transport
        self.folder = os.path.join(scratch, f"minio-{transport}")
        self.port, self.process = free_port(), None
        self.endpoint = f"{'https' if transport == 'tls' else 'http'}://127.0.0.1:{self.port}"
        self.ca_file = os.path.join(self.folder, "ca.crt") if transport == "tls" else None
        self.bucket = None

    def start(self):
        os.makedirs(os.path.join(self.folder, "certs"))
        if self.ca_file:
            make_certificates(self.folder)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "MINIO_ROOT_USER": USER,
            "MINIO_ROOT_PASSWORD": PASSWORD,
            "MINIO_BROWSER": "off",
            # Its scanner would read what we store while we measure.
            "MINIO_SCANNER_SPEED": "slowest",
        }
        argv = [self.program, "server", "--quiet", "--address", f"127.0.0.1:{self.port}"]
        argv += ["--certs-dir", f"{self.folder}/certs", f"{self.folder}/data"]
        with open(f"{self.folder}/log", "w") as log:
            self.process = subprocess.Popen(
                argv, env=env, stdout=log, stderr=log, preexec_fn=die_with_parent(signal.SIGTERM)
            )
        self.bucket = Bucket(self.endpoint, BUCKET, USER, PASSWORD, self.ca_file)
        wait_until(f"MinIO ({self.transport})", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            with open(f"{self.folder}/log") as log:
                raise BenchError(f"MinIO ended: {log.read()[-1000:]}")
        try:
            self.bucket.create()
            return True
        except Exception:  # Not listening, or not ready: asked again until the deadline.
            return False

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


def make_certificates(folder):
    """A CA and a certificate for 127.0.0.1 signed by it: some clients refuse a CA as a server."""
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    run(new + ["-subj", "/CN=bench CA", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.crt"])
    request = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    run(request + ["-keyout", f"{folder}/certs/private.key", "-out", f"{folder}/server.csr"])
    # pgBackRest 2.45 looks for the address among the names of hosts.
    names = "subjectAltName = IP:127.0.0.1,DNS:127.0.0.1"
    with open(f"{folder}/extensions", "w") as file:
        file.write(names + "\nbasicConstraints = CA:FALSE\n")
    sign = ["openssl", "x509", "-req", "-in", f"{folder}/server.csr", "-CA", f"{folder}/ca.crt"]
    sign += ["-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2"]
    run(sign + ["-extfile", f"{folder}/extensions", "-out", f"{folder}/certs/public.crt"])


class Cluster:
    """One PostgreSQL whose archive_command is a script that the bench replaces as it goes."""

    def __init__(self, programs, scratch):
        self.programs, self.process = programs, None
        self.pgdata, self.sockets = f"{scratch}/pgdata", f"{scratch}/run"
        # pgBackRest refuses an archive_command in which its name does not occur.
        self.archive_script = f"{scratch}/archive-with-pgbackrest-or-another"
        self.pool, self.log = f"{scratch}/pool", f"{scratch}/postgres.log"
        self.env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": self.sockets,
            "PGPORT": "5432",
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
        }

    def create(self, segment_mib=16):
        os.mkdir(self.sockets)
        os.mkdir(self.pool)
        run(
            [f"{self.programs}/initdb", "-D", self.pgdata, "-U", "postgres", "-A", "trust", "-k"]
            + ["-E", "UTF8", "--locale=C", f"--wal-segsize={segment_mib}"]
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.sockets,
            "wal_level": "replica",
            "archive_mode": "on",
            "archive_command": f"{self.archive_script} %p %f",
            "shared_buffers": "256MB",
            "max_wal_size": "1GB",
            "checkpoint_timeout": "1h",
            "synchronous_commit": "off",
            # A backup must find the same database each time.
            "autovacuum": "off",
        }
        with open(f"{self.pgdata}/postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.archive_by(None)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [f"{self.programs}/postgres", "-D", self.pgdata],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGQUIT),
            )
        wait_until("PostgreSQL to start", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            raise BenchError(f"PostgreSQL ended: {self.log_end()}")
        return os.path.exists(f"{self.sockets}/.s.PGSQL.5432") and not subprocess.call(
            [f"{self.programs}/pg_isready", "-q"], env=self.env
        )

    def sql(self, statement):
        return run([f"{self.programs}/psql", "-XqAt", "-c", statement], env=self.env).strip()

    def archive_by(self, script):
        """From now on WAL goes through these shell lines ($1 path, $2 name); None forgets it."""
        fresh = f"{self.archive_script}.new"
        with open(fresh, "w") as file:
            file.write(f"#!/bin/sh\n{script or 'exit 0'}\n")
        os.chmod(fresh, 0o755)
        os.rename(fresh, self.archive_script)

    def settle(self):
        """Writes everything out and waits until no finished segment is left to archive."""
        self.sql("CHECKPOINT")
        name = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        failed_before = int(self.sql("SELECT failed_count FROM pg_stat_archiver"))

        def is_archived():
            passed = f"coalesce(last_archived_wal >= '{name}', false)"
            query = f"SELECT {passed}, failed_count FROM pg_stat_archiver"
            is_done, failed_count = self.sql(query).split("|")
            if int(failed_count) > failed_before + 1:
                raise CommandError(f"archive_command failed\n{self.log_end()}")
            return is_done == "t"

        wait_until(f"{name} to be archived", is_archived, seconds=300)

    def log_end(self):
        with open(self.log) as log:
            return log.read()[-1000:]

    def load(self, scale, segments, chunk_s):
        """Fills the database, then changes it until so many segments are kept in the pool."""
        pgbench = [f"{self.programs}/pgbench", "-n"]
        run([*pgbench, "-i", "-q", "-s", str(scale)], env=self.env)
        self.settle()
        self.archive_by(f'cp "$1" {self.pool}/.new && mv {self.pool}/.new {self.pool}/"$2"')
        while len(os.listdir(self.pool)) < segments:
            # A checkpoint in between brings full page images, of which most real WAL consists.
            run([*pgbench, "-M", "prepared", "-c", "4", "-T", str(chunk_s)], env=self.env)
            self.sql("CHECKPOINT")
        self.settle()
        self.archive_by(None)
        names = sorted(name for name in os.listdir(self.pool) if len(name) == 24)
        return [f"{self.pool}/{name}" for name in names[:segments]]

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()


def make_scratch(parent):
    scratch = tempfile.mkdtemp(prefix="peers-", dir=parent)
    os.chmod(scratch, 0o755)
    return scratch


def facts():
    """The machine in one line."""
    with open("/proc/cpuinfo") as file:
        models = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
    with open("/proc/meminfo") as file:
        kilobytes = int(file.readline().split()[1])
    cores = len(os.sched_getaffinity(0))
    kernel = os.uname().release
    model = ", ".join(models) or os.uname().machine
    return f"{cores} cores ({model}), {kilobytes / 2**20:.0f} GiB of memory, Linux {kernel}"
