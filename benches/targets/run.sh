#!/usr/bin/env bash
# Measures the index of the WAL: making it, its size, and finding targets through it.
#
#   benches/targets/run.sh               10,000 segments of 1 MiB to find targets in, 1,000 of 16 MiB
#                                        to index: some 20 minutes, and 12 GB of disk
#   benches/targets/run.sh --small       100 and 20: does it all still run?
#
#   --segments N         how many small segments are searched
#   --build-segments N   how many of 16 MiB `index build` reads
#   --out FILE           write the tables to FILE as well
#   --scratch DIR        where the servers' files go meanwhile (default /var/tmp)
#
# A real PostgreSQL archives to a real MinIO with `cellarman wal archive`. Prints the wall clock, CPU,
# peak memory and requests of each command, then the bars. CELLARMAN_BIN=path takes a built program
# instead of building one. Exit code 1: a command failed, or a bar was missed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

case " $* " in
*' --help '* | *' -h '*)
    sed -n '2,16s/^# \?//p' "$0"
    exit
    ;;
esac

# The servers' programs are those of the tests.
cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}
for server in debian minio; do
    "$root/tests/servers.sh" $server >&2
done
program=${CELLARMAN_BIN:-}
if [ -z "$program" ]; then
    (cd "$root" && cargo build --quiet --release --bin cellarman)
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    program=$target/release/cellarman
fi
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3)
exec "$python" -B "$here/bench.py" --cellarman "$program" --cache "$cache" "$@"
