"""As much of an S3 server as Cellarman asks for, over a made-up archive that takes no disk.

`python3 server.py BACKUPS SEGMENTS` prints its port and serves until it is killed.
`GET /requests` answers how many requests of each kind came since the last time, as JSON.

Signatures are not looked at, and objects whose bytes nobody invented cannot be read.
"""

import bisect
import ctypes
import json
import re
import signal
import sys
import threading
import urllib.parse
from datetime import datetime, timezone
from email.utils import format_datetime
from html import escape, unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from archive import Archive, etag

PAGE = 1000
PR_SET_PDEATHSIG = 1
SEGMENT_STORED = 3_500_000


class Store:
    """All keys in order; what is known of each comes from the archive or was put."""

    def __init__(self, archive):
        self.lock = threading.Lock()
        self.small, self.tars, self.wal = {}, {}, {}
        for number in range(archive.backups):
            for key, content, put in archive.objects(number):
                if isinstance(content, bytes):
                    self.small[key] = (content, etag(content), put)
                else:
                    self.tars[key] = (content, put)
        key, content, put = archive.history()
        self.small[key] = (content, etag(content), put)
        self.wal = dict(archive.wal_keys())
        self.keys = sorted([*self.small, *self.tars, *self.wal])
        self.gone = set()
        self.counts = {}

    def count(self, kind):
        with self.lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def take_counts(self):
        with self.lock:
            counts, self.counts = self.counts, {}
            return counts

    def meta(self, key):
        """(size, etag, put) of a key, None where it is not there."""
        if key in self.gone:
            return None
        if key in self.small:
            content, tag, put = self.small[key]
            return len(content), tag, put
        if key in self.tars:
            size, put = self.tars[key]
            return size, etag(key.encode()) + "-600", put
        if key in self.wal:
            return SEGMENT_STORED, f"{hash(key) & (1 << 128) - 1:032x}", self.wal[key]
        return None

    def put(self, key, content):
        with self.lock:
            if self.meta(key) is None and key not in self.gone:
                bisect.insort(self.keys, key)
            self.gone.discard(key)
            self.small[key] = (content, etag(content), datetime.now(timezone.utc))

    def delete(self, keys):
        with self.lock:
            for key in keys:
                if self.meta(key) is not None:
                    self.gone.add(key)

    def page(self, prefix, after, delimiter, limit):
        """(keys, common prefixes, whether more follows, where to go on)."""
        keys, prefixes, last = [], [], after
        with self.lock:
            at = bisect.bisect_left(self.keys, prefix)
            if after:
                at = max(at, bisect.bisect_right(self.keys, after))
            while at < len(self.keys) and self.keys[at].startswith(prefix):
                key = self.keys[at]
                if key in self.gone:
                    at += 1
                    continue
                if len(keys) + len(prefixes) == limit:
                    return keys, prefixes, True, last
                cut = key.find("/", len(prefix)) if delimiter else -1
                if cut < 0:
                    keys.append(key)
                    last, at = key, at + 1
                else:
                    common = key[: cut + 1]
                    prefixes.append(common)
                    last = common + "\U0010ffff"
                    at = bisect.bisect_left(self.keys, last, at)
        return keys, prefixes, False, None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer in one packet, not held back for the next one.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    store = None

    def log_message(self, *_):
        pass

    def split(self):
        parts = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(parts.path).removeprefix("/bucket").removeprefix("/")
        return key, dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))

    def body(self):
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
        else:
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if "aws-chunked" in self.headers.get("content-encoding", ""):
            raise ValueError("an aws-chunked body is not understood")
        return content

    def answer(self, status, content=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def refuse(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def do_GET(self):
        if self.path == "/requests":
            self.answer(200, json.dumps(self.store.take_counts()).encode())
            return
        key, query = self.split()
        if "list-type" in query:
            self.store.count("LIST")
            self.list(query)
        else:
            self.store.count("GET")
            self.object(key)

    def do_HEAD(self):
        self.store.count("HEAD")
        self.object(self.split()[0])

    def object(self, key):
        meta = self.store.meta(key)
        if meta is None:
            self.refuse(404, "NoSuchKey")
            return
        content = self.store.small.get(key, (b"",))[0]
        size, tag, put = meta
        headers = [("etag", f'"{tag}"'), ("last-modified", format_datetime(put, usegmt=True))]
        if self.command == "HEAD":
            # The size is of the object: what is sent has none.
            self.send_response(200)
            for name, value in [*headers, ("content-length", str(size))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.flush()
        elif len(content) != size:
            self.refuse(501, "NotImplemented")
        else:
            self.answer(200, content, headers)

    def list(self, query):
        prefix = query.get("prefix", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        limit = min(int(query.get("max-keys", PAGE)), PAGE)
        keys, prefixes, more, last = self.store.page(prefix, after, query.get("delimiter"), limit)
        quote = urllib.parse.quote if query.get("encoding-type") == "url" else escape
        parts = ['<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>']
        if query.get("encoding-type"):
            parts.append("<EncodingType>url</EncodingType>")
        parts.append(f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>")
        if more:
            parts.append(f"<NextContinuationToken>{escape(last)}</NextContinuationToken>")
        for key in keys:
            size, tag, put = self.store.meta(key) or (0, "", datetime.now(timezone.utc))
            parts.append(
                f"<Contents><Key>{quote(key)}</Key><LastModified>"
                f"{put:%Y-%m-%dT%H:%M:%S}.{put.microsecond // 1000:03}Z</LastModified>"
                f'<ETag>"{tag}"</ETag><Size>{size}</Size>'
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        parts += [
            f"<CommonPrefixes><Prefix>{quote(one)}</Prefix></CommonPrefixes>" for one in prefixes
        ]
        parts.append("</ListBucketResult>")
        self.answer(200, "".join(parts).encode(), [("content-type", "application/xml")])

    def do_PUT(self):
        self.store.count("PUT")
        content = self.body()
        self.store.put(self.split()[0], content)
        self.answer(200, b"", [("etag", f'"{etag(content)}"')])

    def do_DELETE(self):
        self.store.count("DELETE")
        self.store.delete([self.split()[0]])
        self.answer(204)

    def do_POST(self):
        content = self.body().decode()
        if "delete" not in self.split()[1]:
            self.store.count("POST")
            self.refuse(501, "NotImplemented")
            return
        self.store.count("DELETE (bulk)")
        self.store.delete([unescape(key) for key in re.findall("<Key>([^<]*)</Key>", content)])
        self.answer(200, b"<DeleteResult></DeleteResult>")


def main():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    backups, segments = map(int, sys.argv[1:3])
    Handler.store = Store(Archive(backups, segments))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
