"""A sidecar under measurement: its manifests, its process, its socket.

Not here: what is asked of it, and what the answers are worth (bench.py).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import grpc
from machine import BUCKET, PASSWORD, USER, BenchError, die_with_parent, wait_until

TICK = os.sysconf("SC_CLK_TCK")
PLUGIN = "barman-cloud.cloudnative-pg.io"


def compile_protocol(root, scratch):
    """The message classes of proto/, importable from now on."""
    from grpc_tools import protoc

    out = f"{scratch}/protocol"
    os.mkdir(out)
    files = sorted(os.listdir(f"{root}/proto/cnpgi"))
    argv = ["protoc", f"-I{root}/proto/cnpgi", f"--python_out={out}"]
    if protoc.main(argv + [f"{root}/proto/cnpgi/{name}" for name in files]) != 0:
        raise BenchError("protoc failed on proto/cnpgi")
    sys.path.insert(0, out)


def object_store(compression, jobs, endpoint):
    """The ObjectStore and its Secret, as JSON documents (which are YAML)."""
    key = {"name": "bench-keys"}
    data = {"compression": compression} if compression != "none" else {}
    return [
        {
            "apiVersion": "barmancloud.cnpg.io/v1",
            "kind": "ObjectStore",
            "metadata": {"name": "store", "namespace": "bench"},
            "spec": {
                "configuration": {
                    "destinationPath": f"s3://{BUCKET}/sidecar",
                    "endpointURL": endpoint,
                    "s3Credentials": {
                        "accessKeyId": key | {"key": "id"},
                        "secretAccessKey": key | {"key": "secret"},
                    },
                    "wal": data | {"maxParallel": jobs},
                    "data": data | {"jobs": 2, "immediateCheckpoint": True},
                }
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bench-keys", "namespace": "bench"},
            "stringData": {"id": USER, "secret": PASSWORD},
        },
    ]


def cluster(server, primary, recovers=False):
    """A Cluster that archives to `server`, or one that is recovered from it."""
    archive = {"name": PLUGIN, "parameters": {"barmanObjectName": "store", "serverName": server}}
    if recovers:
        spec = {
            "bootstrap": {"recovery": {"source": "origin"}},
            "externalClusters": [{"name": "origin", "plugin": archive}],
        }
    else:
        spec = {"plugins": [archive | {"isWALArchiver": True}]}
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": "bench", "namespace": "bench", "uid": "bench-uid"},
        "spec": {"instances": 1} | spec,
        "status": {"currentPrimary": primary, "targetPrimary": primary, "timelineID": 1},
    }


class Sidecar:
    """One process with its socket."""

    def __init__(self, program, folder, documents, env):
        self.folder, self.socket = folder, f"{folder}/socket"
        os.makedirs(f"{folder}/resources")
        os.mkdir(f"{folder}/spool")
        for document in documents:
            name = f"{document['kind']}-{document['metadata']['name']}.yaml".lower()
            with open(f"{folder}/resources/{name}", "w") as file:
                json.dump(document, file)
        self.mode = "instance"
        self.program, self.process, self.channel = program, None, None
        self.definition = json.dumps(documents[-1]).encode()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            **{k: v for k, v in os.environ.items() if k == "GLIBC_TUNABLES"},
            "NAMESPACE": "bench",
            "CLUSTER_NAME": "bench",
            "POD_NAME": "bench-1",
            "SPOOL_DIRECTORY": f"{folder}/spool",
        } | env

    def start(self):
        argv = [self.program, self.mode, "--resources", f"{self.folder}/resources"]
        with open(f"{self.folder}/log", "w") as log:
            self.process = subprocess.Popen(
                argv + ["--socket", self.socket],
                env=self.env,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        wait_until("the sidecar's socket", self.is_ready)
        # The default, made of the path, is no authority to a strict server.
        self.channel = grpc.insecure_channel(
            f"unix:{self.socket}", options=[("grpc.default_authority", "localhost")]
        )
        grpc.channel_ready_future(self.channel).result(timeout=30)

    def is_ready(self):
        if self.process.poll() is not None:
            raise BenchError(f"the sidecar ended: {self.log_end()}")
        return os.path.exists(self.socket)

    def log_end(self):
        with contextlib.suppress(OSError), open(f"{self.folder}/log") as log:
            return log.read()[-1500:]
        return ""

    def call(self, method, request, answer):
        """One call; (seconds, answer). Raises with the server's words."""
        ask = self.channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        begin = time.monotonic()
        try:
            found = ask(request, timeout=1800)
        except grpc.RpcError as error:
            raise BenchError(f"{method}: {error.code()}: {error.details()}") from None
        return time.monotonic() - begin, found

    def memory(self):
        """(resident now, highest since the last reset), in bytes."""
        found = {}
        with open(f"/proc/{self.process.pid}/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("VmRSS", "VmHWM"):
                    found[name] = int(value.split()[0]) * 1024
        return found["VmRSS"], found["VmHWM"]

    def reset_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICK

    def stop(self):
        if self.channel:
            self.channel.close()
        if self.process:
            self.process.terminate()
            self.process.wait()
