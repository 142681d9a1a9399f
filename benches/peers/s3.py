"""As much of S3 as the bench needs, in the standard library: it measures what others stored.

Requests are signed (SigV4) without the body unless that is asked for, so that a PUT costs next to
nothing here and its time is the server's and the connection's: the limit that no tool can pass.

Not here: retries; the server is on the loopback.
"""

import hashlib
import hmac
import http.client
import ssl
import threading
import urllib.parse
import xml.etree.ElementTree
from datetime import datetime, timezone

PART_BYTES = 8 << 20
UNSIGNED = "UNSIGNED-PAYLOAD"


class S3Error(Exception):
    """An answer that is not 2xx."""


class Bucket:
    """One bucket, addressed by path."""

    def __init__(self, endpoint, bucket, access_key, secret_key, ca_file=None):
        self.endpoint = urllib.parse.urlsplit(endpoint)
        self.bucket, self.access_key, self.secret_key = bucket, access_key, secret_key
        self.context = ssl.create_default_context(cafile=ca_file) if ca_file else None

    def connect(self):
        if self.context:
            return http.client.HTTPSConnection(self.endpoint.netloc, context=self.context)
        return http.client.HTTPConnection(self.endpoint.netloc)

    def request(self, method, key="", query=(), body=b"", connection=None, body_hash=UNSIGNED):
        """One signed request; returns (headers, body)."""
        path = urllib.parse.quote(f"/{self.bucket}/{key}" if key else f"/{self.bucket}")
        query = urllib.parse.urlencode(sorted(query), quote_via=urllib.parse.quote)
        own = connection or self.connect()
        try:
            headers = self.sign(method, path, query, body_hash)
            own.request(method, f"{path}?{query}" if query else path, body, headers)
            answer = own.getresponse()
            content = answer.read()
        finally:
            if connection is None:
                own.close()
        if answer.status // 100 != 2:
            raise S3Error(f"{method} {path}: {answer.status} {content[:300]!r}")
        return answer.headers, content

    def sign(self, method, path, query, body_hash=UNSIGNED):
        now = datetime.now(timezone.utc)
        day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "host": self.endpoint.netloc,
            "x-amz-content-sha256": body_hash,
            "x-amz-date": moment,
        }
        names = ";".join(headers)
        canonical = "\n".join(
            [method, path, query]
            + [f"{name}:{value}" for name, value in headers.items()]
            + ["", names, body_hash]
        )
        scope = f"{day}/us-east-1/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret_key}".encode()
        for word in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={key.hex()}"
        )
        return headers

    def create(self):
        self.request("PUT")

    def list(self, prefix):
        """(key, size) of all objects below `prefix`."""
        token, found = None, []
        while True:
            query = [("list-type", "2"), ("prefix", prefix)]
            query += [("continuation-token", token)] if token else []
            tree = xml.etree.ElementTree.fromstring(self.request("GET", query=query)[1])
            space = tree.tag.partition("}")[0] + "}"
            for item in tree.iter(f"{space}Contents"):
                found.append((item.findtext(f"{space}Key"), int(item.findtext(f"{space}Size"))))
            token = tree.findtext(f"{space}NextContinuationToken")
            if not token:
                return found

    def stored_bytes(self, prefix):
        return sum(size for _, size in self.list(prefix))

    def delete_all(self, prefix):
        connection = self.connect()
        for key, _ in self.list(prefix):
            self.request("DELETE", key, connection=connection)
        connection.close()

    def put_parts(self, key, parts, connections, is_signed=False):
        """A multipart upload of `parts` (callables that give bytes) over so many connections; each
        request says what its body hashes to, as tools do over plain HTTP, or not."""
        answer = self.request("POST", key, [("uploads", "")])[1]
        upload = xml.etree.ElementTree.fromstring(answer).findtext("{*}UploadId")
        tags = {}

        def put(connection, number):
            query = [("partNumber", str(number)), ("uploadId", upload)]
            body = parts[number - 1]()
            body_hash = hashlib.sha256(body).hexdigest() if is_signed else UNSIGNED
            headers, _ = self.request("PUT", key, query, body, connection, body_hash)
            tags[number] = headers["ETag"]

        self.in_parallel(put, range(1, len(parts) + 1), connections)
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tags[number]}</ETag></Part>"
            for number in sorted(tags)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        self.request("POST", key, [("uploadId", upload)], body)

    def get_parts(self, key, size, connections):
        """Reads an object by ranges over so many connections and forgets it."""

        def get(connection, begin):
            end = min(begin + PART_BYTES, size) - 1
            path = urllib.parse.quote(f"/{self.bucket}/{key}")
            headers = self.sign("GET", path, "") | {"range": f"bytes={begin}-{end}"}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            while answer.read(1 << 20):
                pass
            if answer.status != 206:
                raise S3Error(f"GET {path}: {answer.status}")

        self.in_parallel(get, range(0, size, PART_BYTES), connections)

    def get_into(self, connection, key, write):
        """Reads an object whole over one connection, stretch by stretch."""
        path = urllib.parse.quote(f"/{self.bucket}/{key}")
        connection.request("GET", path, headers=self.sign("GET", path, ""))
        answer = connection.getresponse()
        while stretch := answer.read(1 << 20):
            write(stretch)
        if answer.status != 200:
            raise S3Error(f"GET {path}: {answer.status}")

    def in_parallel(self, act, items, connections):
        """Calls `act(connection, item)` for each item; the first error is raised."""
        queue, lock, errors = iter(items), threading.Lock(), []

        def work():
            connection = self.connect()
            while not errors:
                with lock:
                    item = next(queue, None)
                if item is None:
                    break
                try:
                    act(connection, item)
                except Exception as error:  # Whatever it is, the caller gets it.
                    errors.append(error)
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
