#!/usr/bin/env bash
# Measures list, show, check of names and expire over an archive of many backups and much WAL.
#
#   benches/scale/run.sh               10,000 backups and 1,000,000 WAL objects behind a made-up S3
#                                      server; 2,000 and 50,000 in a directory: some minutes
#   benches/scale/run.sh --small       100 and 10,000: does it all still run?
#
#   --backups N, --wal N               how many behind the server
#   --local-backups N, --local-wal N   how many in the directory
#   --out FILE                         write the tables to FILE as well
#   --scratch DIR                      where the directory goes meanwhile (default /var/tmp)
#
# Prints for each command its wall clock, CPU, peak memory and its requests by kind. The server keeps
# nothing on disk and answers at once: its time is not a service's, its requests are.
# CELLARMAN_BIN=path takes a built program instead of building one. Exit code 1: a command failed,
# or took more memory than 96 MiB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

case " $* " in
*' --help '* | *' -h '*)
    sed -n '2,17s/^# \?//p' "$0"
    exit
    ;;
esac

program=${CELLARMAN_BIN:-}
if [ -z "$program" ]; then
    (cd "$root" && cargo build --quiet --release --bin cellarman)
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    program=$target/release/cellarman
fi
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3)
exec "$python" -B "$here/bench.py" --cellarman "$program" "$@"
