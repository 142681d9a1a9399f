"""A made-up archive of one server: the keys of many backups and much WAL, and the bytes of the small
objects. The same numbers give the same archive, but for the day it ends, which is today.

Backups are an hour apart and the WAL between them is even. At two thirds the server was promoted,
so the rest lies on timeline 2. Every thousandth backup is kept, every hundredth has FAILED.

Not here: serving or storing it.
"""

import hashlib
import json
from datetime import datetime, timedelta, timezone

SERVER = "scale"
SEGMENT_BYTES = 16 << 20
SEGMENTS_PER_LOG = 256
STEP = timedelta(hours=1)
SYSTEM_ID = 7542954718462095382


def timestamp(moment):
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f+00:00")


class Archive:
    """So many backups and WAL files, the last of them of this hour."""

    def __init__(self, backups, segments):
        self.backups, self.segments = backups, segments
        hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
        self.begin = hour - STEP * backups
        self.promoted_at = segments * 2 // 3

    def moment_of_segment(self, index):
        return self.begin + STEP * (self.backups * index / self.segments)

    def segment(self, index):
        timeline = 1 if index < self.promoted_at else 2
        log, segment = divmod(index + 1, SEGMENTS_PER_LOG)
        return timeline, log, segment

    def segment_name(self, index):
        timeline, log, segment = self.segment(index)
        return f"{timeline:08X}{log:08X}{segment:08X}"

    def wal_keys(self):
        """Of every segment, with the time it was put."""
        for index in range(self.segments):
            name = self.segment_name(index)
            yield f"{SERVER}/wals/{name[:16]}/{name}.zst", self.moment_of_segment(index)

    def history(self):
        _, log, segment = self.segment(self.promoted_at)
        text = f"1\t{log:X}/{segment:X}000028\tno recovery target specified\n"
        return f"{SERVER}/wals/00000002.history", text.encode(), self.moment_of_segment(self.promoted_at)

    def backup_id(self, number):
        return (self.begin + STEP * number).strftime("%Y%m%dT%H%M%S")

    def objects(self, number):
        """The objects of one backup: (key, bytes or a size, when it was put)."""
        backup_id = self.backup_id(number)
        folder = f"{SERVER}/base/{backup_id}"
        end = self.begin + STEP * number + timedelta(minutes=10)
        yield f"{folder}/backup.info", self.record(number).encode(), end
        yield f"{folder}/data.tar.gz", 5 << 30, end
        yield f"{folder}/data_0001.tar.gz", 1 << 30, end
        if number % 1000 == 500:
            yield f"{folder}/annotations/keep", b"full" if number % 2000 == 500 else b"standalone", end
        objects = [{"name": "data.tar.gz", "size": 5 << 30, "blake3": "00" * 32}]
        text = json.dumps({"objects": objects, "damaged": []}).encode()
        yield f"{SERVER}/cellarman/backups/{backup_id}/objects.json", text, end

    def record(self, number):
        begin = self.begin + STEP * number
        end = begin + timedelta(minutes=10)
        first = self.segments * number // self.backups
        last = min(first + 1, self.segments - 1)
        timeline, log, segment = self.segment(first)
        _, end_log, end_segment = self.segment(last)
        failed = number % 100 == 99
        location = f"{log:X}/{segment:X}000028"
        label = (
            f"START WAL LOCATION: {location} (file {self.segment_name(first)})\\n"
            f"CHECKPOINT LOCATION: {log:X}/{segment:X}000060\\nBACKUP METHOD: streamed\\n"
            f"BACKUP FROM: primary\\nSTART TIME: {begin:%Y-%m-%d %H:%M:%S} UTC\\n"
            f"LABEL: Barman backup cloud {self.backup_id(number)}\\nSTART TIMELINE: {timeline}\\n"
        )
        fields = {
            "backup_label": None if failed else f"'{label}'",
            "backup_name": f"nightly-{number}",
            "begin_offset": 40,
            "begin_time": timestamp(begin),
            "begin_wal": self.segment_name(first),
            "begin_xlog": location,
            "children_backup_ids": None,
            "cluster_size": 8_000_000_000 + number,
            "compression": None,
            "config_file": "/etc/postgresql/15/main/postgresql.conf",
            "copy_stats": f"{{'total_time': {number}.25, 'number_of_workers': 4}}",
            "data_checksums": "on",
            "deduplicated_size": None,
            "encryption": None,
            "end_offset": None if failed else 256,
            "end_time": None if failed else timestamp(end),
            "end_wal": None if failed else self.segment_name(last),
            "end_xlog": None if failed else f"{end_log:X}/{end_segment:X}000100",
            "error": "failure uploading data (connection reset)" if failed else None,
            "hba_file": "/etc/postgresql/15/main/pg_hba.conf",
            "ident_file": "/etc/postgresql/15/main/pg_ident.conf",
            "included_files": None,
            "mode": None,
            "parent_backup_id": None,
            "pgdata": "/var/lib/postgresql/15/main",
            "server_name": "cloud",
            "size": None,
            "status": "FAILED" if failed else "DONE",
            "systemid": SYSTEM_ID,
            "tablespaces": "[('warm', 16387, '/srv/warm'), ('cold', 16388, '/srv/cold')]",
            "timeline": timeline,
            "version": 150020,
            "xlog_segment_size": SEGMENT_BYTES,
        }
        return "".join(f"{key}={value}\n" for key, value in fields.items())


def etag(content):
    return hashlib.md5(content).hexdigest()
