"""The command lines of the tools that are compared, and where each stores what it stores.

A tool is bound to one MinIO, so that a peer and Cellarman beside it talk the same transport. The
word for a compression is Cellarman's: none, or CODEC:LEVEL; what a peer cannot be told stands in
`Barman.fixed_level`.

Not here: what is measured with them.
"""

import json
import os
import shlex
import shutil

from machine import BUCKET, PASSWORD, USER, run

JOBS = 2


class Tool:
    """What the tools share."""

    name = ""

    def __init__(self, program, minio, cluster, scratch):
        self.program, self.minio, self.cluster, self.scratch = program, minio, cluster, scratch
        self.key = f"{self.name.lower()}-{minio.transport}"
        self.home = f"{scratch}/{self.key}"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": self.home,
            # Short: Barman makes Unix sockets below it.
            "TMPDIR": f"{scratch}/t",
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def missing(self):
        """Why it cannot run here, or None."""
        if not (self.program and os.access(self.program, os.X_OK)):
            return f"{self.program or self.name.lower()} is not installed"
        return None

    def set_up(self):
        os.makedirs(f"{self.scratch}/t", exist_ok=True)
        os.mkdir(self.home)

    def prepare_archive(self, archive):
        """Before the first archive or backup into this archive."""

    def archive_script(self, archive, compression):
        """The shell lines of an archive_command."""
        argv = self.archive_argv(archive, compression, "@")
        env = [shlex.quote(f"{name}={value}") for name, value in self.env.items()]
        words = ['"$1"' if word == "@" else shlex.quote(word) for word in argv]
        return f"cd {shlex.quote(self.cluster.pgdata)}\nexec env -i {' '.join([*env, *words])}"

    def backup_env(self):
        return self.env | {name: self.cluster.env[name] for name in self.cluster.env if name != "PATH"}

    def stored(self, prefix):
        return self.minio.bucket.stored_bytes(prefix)

    def wal_prefix(self, archive):
        """Where the WAL of an archive is."""
        return f"{self.name.lower()}/{archive}/wals/"

    def base_prefix(self, archive):
        """Where the base backups of an archive are."""
        return f"{self.name.lower()}/{archive}/base/"

    def forget_backups(self, archive):
        """Removes all backups of an archive, outside any measurement."""
        self.minio.bucket.delete_all(self.base_prefix(archive))

    def last_backup(self, archive):
        """The id of the newest backup."""
        prefix = self.base_prefix(archive)
        keys = [key.removeprefix(prefix) for key, _ in self.minio.bucket.list(prefix)]
        return max(key.partition("/")[0] for key in keys if "/" in key)


class Cellarman(Tool):
    """This project."""

    name = "Cellarman"

    def set_up(self):
        super().set_up()
        if self.minio.ca_file:
            self.env["AWS_CA_BUNDLE"] = self.minio.ca_file

    def version(self):
        return run([self.program, "--version"]).strip()

    def command(self, archive, *words):
        store = ["--store", f"s3://{BUCKET}/cellarman", "--endpoint-url", self.minio.endpoint]
        return [self.program, *store, "--server", archive, *words]

    def archive_argv(self, archive, compression, path, jobs=None):
        parallel = ["--jobs", str(jobs)] if jobs else []
        return self.command(
            archive, "wal", "archive", "--compression", compression, *parallel, path
        )

    def backup_argv(self, archive, compression, jobs=JOBS):
        return self.command(
            archive, "backup", "create", "--compression", compression,
            "--jobs", str(jobs), "--immediate-checkpoint",
        )  # fmt: skip

    def forget_backups(self, archive):
        super().forget_backups(archive)
        self.minio.bucket.delete_all(f"cellarman/{archive}/cellarman/backups/")

    def restore_argv(self, archive, backup, folder, jobs=JOBS):
        return self.command(
            archive, "restore", "--pgdata", folder, "--backup-id", backup, "--jobs", str(jobs)
        )


class Barman(Tool):
    """Barman Cloud, for which `program` is the folder of its commands."""

    name = "Barman"
    # Of base backups, whose level cannot be chosen: gzip's is the highest.
    fixed_level = {"gzip": "gzip:9", "lz4": "lz4:0"}

    def missing(self):
        if not os.access(f"{self.program}/barman-cloud-backup", os.X_OK):
            return f"barman-cloud-backup is not in {self.program} (tests/servers.sh barman)"
        return None

    def version(self):
        return run([f"{self.program}/barman-cloud-backup", "--version"]).split()[-1]

    def command(self, verb, *words):
        service = ["--endpoint-url", self.minio.endpoint, "--cloud-provider", "aws-s3"]
        return [f"{self.program}/barman-cloud-{verb}", *service, *words]

    def archive_argv(self, archive, compression, path):
        codec, _, level = compression.partition(":")
        words = [] if codec == "none" else [f"--{codec}"]
        words += ["--compression-level", level] if level else []
        return self.command("wal-archive", *words, f"s3://{BUCKET}/barman", archive, path)

    def backup_argv(self, archive, compression):
        codec = compression.partition(":")[0]
        words = [] if codec == "none" else [f"--{codec}"]
        words += ["-J", str(JOBS), "--immediate-checkpoint"]
        return self.command("backup", *words, f"s3://{BUCKET}/barman", archive)

    def restore_argv(self, archive, backup, folder):
        # It leaves the writing to the kernel; the others return when the data is on the disk.
        restore = self.command("restore", f"s3://{BUCKET}/barman", archive, backup, folder)
        return ["sh", "-c", f"{shlex.join(restore)} && sync -f {shlex.quote(folder)}"]


class PgBackRest(Tool):
    """pgBackRest, with bundles; 2.45 speaks TLS alone."""

    name = "pgBackRest"
    codecs = {"none": "none", "gzip": "gz", "lz4": "lz4", "zstd": "zst", "bzip2": "bz2"}

    def set_up(self):
        super().set_up()
        for folder in ("spool", "lock", "log"):
            os.mkdir(f"{self.home}/{folder}")
        settings = {
            "repo1-type": "s3",
            "repo1-s3-bucket": BUCKET,
            "repo1-s3-endpoint": "127.0.0.1",
            "repo1-storage-port": self.minio.port,
            "repo1-storage-ca-file": self.minio.ca_file,
            "repo1-s3-uri-style": "path",
            "repo1-s3-region": "us-east-1",
            "repo1-s3-key": USER,
            "repo1-s3-key-secret": PASSWORD,
            "repo1-bundle": "y",
            "repo1-retention-full": 1,
            "process-max": JOBS,
            "start-fast": "y",
            "archive-timeout": 300,
            "spool-path": f"{self.home}/spool",
            "lock-path": f"{self.home}/lock",
            "log-path": f"{self.home}/log",
            "log-level-file": "off",
            "log-level-console": "warn",
        }
        stanza = {
            "pg1-path": self.cluster.pgdata,
            "pg1-port": 5432,
            "pg1-socket-path": self.cluster.sockets,
            "pg1-user": "postgres",
        }
        with open(f"{self.home}/conf", "w") as file:
            for section, lines in (("global", settings), ("x", stanza)):
                file.write(f"[{section}]\n")
                file.writelines(f"{name}={value}\n" for name, value in lines.items())

    def version(self):
        return run([self.program, "version"]).split()[-1]

    def command(self, archive, *words, pgdata=None):
        where = [f"--config={self.home}/conf", "--stanza=x", f"--repo1-path=/pgbackrest/{archive}"]
        where += [f"--pg1-path={pgdata}"] if pgdata else []
        return [self.program, *where, *words]

    def compress(self, compression):
        codec, _, level = compression.partition(":")
        words = [f"--compress-type={self.codecs[codec]}"]
        return words + ([f"--compress-level={level}"] if level else [])

    def prepare_archive(self, archive):
        # Its spool says of each segment that it is archived, whatever the archive.
        shutil.rmtree(f"{self.home}/spool/archive", ignore_errors=True)
        run(self.command(archive, "stanza-create", "--no-online"), env=self.env)

    def archive_argv(self, archive, compression, path, jobs=None):
        words = [*self.compress(compression), *(["--archive-async"] if jobs else [])]
        # The folder of the file stands for the data directory: where .ready files are looked for.
        pgdata = os.path.dirname(os.path.dirname(path)) or None
        return self.command(archive, *words, "archive-push", path, pgdata=pgdata)

    def backup_argv(self, archive, compression):
        words = ["--type=full", "--no-expire-auto", *self.compress(compression)]
        return self.command(archive, *words, "backup")

    def wal_prefix(self, archive):
        return f"pgbackrest/{archive}/archive/x/"

    def base_prefix(self, archive):
        return f"pgbackrest/{archive}/backup/x/"

    def forget_backups(self, archive):
        run(self.command(archive, "expire"), env=self.env)

    def last_backup(self, archive):
        info = json.loads(run(self.command(archive, "info", "--output=json"), env=self.env))
        return info[0]["backup"][-1]["label"]

    def restore_argv(self, archive, backup, folder):
        return self.command(archive, f"--set={backup}", "restore", pgdata=folder)


def find_all(options, http, tls, cluster, scratch):
    """Every tool on each transport that it is compared on."""
    cellarman = f"{scratch}/cellarman"
    pgbackrest = shutil.which("pgbackrest")
    return [
        Cellarman(cellarman, http, cluster, scratch),
        Barman(f"{options.cache}/barman/bin", http, cluster, scratch),
        Cellarman(cellarman, tls, cluster, scratch),
        PgBackRest(pgbackrest, tls, cluster, scratch),
    ]
