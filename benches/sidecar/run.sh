#!/usr/bin/env bash
# Measures the sidecar (`cellarman-plugin instance` and `restore`) over its own socket.
#
#   benches/sidecar/run.sh                 all pieces, a 2 GB database: 15 minutes on two cores
#   benches/sidecar/run.sh --small         some seconds: does it all still run?
#
#   --scale N        pgbench's scale: 15 MB each (default 140; with --small 5)
#   --segments N     of the long run (default 2000; with --small 20)
#   --out FILE       write the tables to FILE as well
#   --scratch DIR    where servers and archives go meanwhile (default /var/tmp; 15 GB)
#   --pieces LIST    some of archive,burst,growth,backup,restore
#
# MinIO comes from tests/servers.sh, the gRPC client from PyPI. Everything listens on the loopback
# or a Unix socket, is stopped by its pid, and its directory goes at the end.
# CELLARMAN_PLUGIN_BIN=path takes a built program instead of building one. Exit code 1: a call
# failed, or a bar was missed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}

case " $* " in
*' --help '* | *' -h '*)
    sed -n '2,17s/^# \?//p' "$0"
    exit
    ;;
esac

for server in debian minio; do
    "$root/tests/servers.sh" $server >&2
done
client=$cache/grpc-client
if [ ! -e "$client/done" ]; then
    /usr/bin/python3 -m venv "$client"
    "$client/bin/pip" install --quiet grpcio==1.76.0 grpcio-tools==1.76.0
    touch "$client/done"
fi
program=${CELLARMAN_PLUGIN_BIN:-}
if [ -z "$program" ]; then
    (cd "$root" && cargo build --quiet --release --bin cellarman-plugin)
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    program=$target/release/cellarman-plugin
fi
exec "$client/bin/python" -B "$here/bench.py" --plugin "$program" --cache "$cache" "$@"
