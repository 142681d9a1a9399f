#!/usr/bin/env bash
# Measures Cellarman beside Barman Cloud and pgBackRest on this machine, and prints tables.
#
#   benches/peers/run.sh                   a 2 GB pgbench database, 5 rounds: 45 minutes on two
#                                          cores with nothing else to do
#   benches/peers/run.sh --small           some seconds: does it all still run?
#
#   --rounds N       how often each tool takes its turn (default 5; with --small 1)
#   --scale N        pgbench's scale: 15 MB each (default 135; with --small 5)
#   --out FILE       write the tables to FILE as well
#   --scratch DIR    where servers and archives go meanwhile (default /var/tmp; 20 GB for scale 135)
#   --minutes N      when no run over a minute is begun once more (default 45)
#   --pieces LIST    some of wal,backup,restore,backlog,memory,limits
#
# Servers and peers come from tests/servers.sh; a peer that is not there is reported as not run.
# Everything listens on the loopback, is stopped by its pid, and its directory goes at the end.
# CELLARMAN_BIN=path takes a built program instead of building one. Exit code 1: a tool failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}

case " $* " in
*' --help '* | *' -h '*)
    sed -n '2,18s/^# \?//p' "$0"
    exit
    ;;
esac

for server in debian minio barman; do
    "$root/tests/servers.sh" $server >&2
done
program=${CELLARMAN_BIN:-}
if [ -z "$program" ]; then
    (cd "$root" && cargo build --quiet --release --bin cellarman)
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    program=$target/release/cellarman
fi
# Not the python3 of PATH: one under root's home cannot be read by the user postgres.
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3)
exec "$python" -B "$here/bench.py" --cellarman "$program" --cache "$cache" "$@"
