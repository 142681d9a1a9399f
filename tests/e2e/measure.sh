#!/usr/bin/env bash
# Figures of a plugin on the bed: memory and CPU of the sidecar, WAL one by one and in a burst, a backup, a recovery.
#
#   tests/e2e/measure.sh [all|wal|backup|recovery|growth]    the same environment as run.sh; `growth` archives E2E_SEGMENTS (2000) segments
#
# STORE_PARALLEL is wal.maxParallel (8), E2E_ROWS the size of the load in KB (300000), E2E_SIDECAR what the store says of
# its sidecar, such as `resources: {limits: {memory: 96Mi}}`.
# Memory is the cgroup's: total_rss of memory.stat, polled, and memory.max_usage_in_bytes, which counts page cache too.
# One line per figure: PLUGIN <tab> WHAT <tab> VALUE.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "${BED_DIR:-}/env.sh" ]; then
    echo "tests/e2e/measure.sh needs BED_DIR, the directory that holds the env.sh of a running bed" >&2
    exit 2
fi
# shellcheck source=/dev/null
. "$BED_DIR/env.sh"
PLUGIN=${PLUGIN:-cellarman}
NS=${E2E_NAMESPACE:-measure}
E2E_NAMESPACE=$NS
. "$here/lib.sh"
. "$here/plugin.sh"
trap 'stop_watching; rm -rf "$STATE"' EXIT
set -e

figure() { printf '%s\t%s\t%s\n' "$PLUGIN" "$1" "$2"; }
cgroup() { find "/sys/fs/cgroup/$1/kubepods" -type d -name "$2" | head -1; }
rss() { awk '/^total_rss /{print $2}' "$(cgroup memory "$1")/memory.stat"; }
cpu() { cat "$(cgroup cpuacct "$1")/cpuacct.usage"; } # nanoseconds
mib() { awk -v b="$1" 'BEGIN { printf "%.1f MiB", b / 1048576 }'; }
cpu_seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f s", (b - a) / 1e9 }'; }

watching=''
# Notes the highest total_rss of a container, as often as it can be read, until stop_watching; and its last CPU time.
watch_memory() { # CONTAINER ID
    local memory cpuacct
    memory=$(cgroup memory "$1") cpuacct=$(cgroup cpuacct "$1")
    echo 0 >"$memory/memory.max_usage_in_bytes" 2>/dev/null || true
    : >"$STATE/rss" && : >"$STATE/usage" && : >"$STATE/cpu"
    (
        top=0
        while [ -e "$memory/memory.stat" ]; do
            while read -r key value; do [ "$key" != total_rss ] || now=$value; done <"$memory/memory.stat" || break
            [ "${now:-0}" -le "$top" ] || { top=$now && echo "$top" >"$STATE/rss"; }
            cat "$memory/memory.max_usage_in_bytes" >"$STATE/usage.new" 2>/dev/null && mv "$STATE/usage.new" "$STATE/usage"
            cat "$cpuacct/cpuacct.usage" >"$STATE/cpu.new" 2>/dev/null && mv "$STATE/cpu.new" "$STATE/cpu"
            sleep 0.02
        done
    ) 2>/dev/null &
    watching=$!
}
stop_watching() {
    [ -z "$watching" ] || kill "$watching" 2>/dev/null || true
    watching=''
}
peak() { # WHAT
    stop_watching
    figure "$1: peak RSS" "$(mib "$(cat "$STATE/rss")")"
    figure "$1: peak with page cache" "$(mib "$(cat "$STATE/usage")")"
}
# Fills WAL with bytes that compress as usual table rows do, about 16 MiB of it.
fill='select pg_logical_emit_message(false, $$fill$$, string_agg(md5(i::text || random()::text) || repeat($$row $$, 8), $$$$)) from generate_series(1, %d) i'
segment() { # ROWS of 64 bytes: one segment's worth, then a switch
    # shellcheck disable=SC2059
    sql "$1" "$(printf "$fill" "${2:-200000}")" >/dev/null
    sql "$1" 'select pg_walfile_name(pg_switch_wal())' | tail -1
}

make_cluster() {
    local begin
    install_plugin "$PLUGIN" >/dev/null
    clear_namespace
    namespace "$NS"
    object_store store ${E2E_SIDECAR:+"instanceSidecarConfiguration: {$E2E_SIDECAR}"}
    begin=$(date +%s%N)
    cluster meter 1 "$(archives_to store)"
    healthy meter
    archiving meter
    figure 'cluster of 1 ready, archiving' "$(seconds "$begin" "$(date +%s%N)") s"
    id=$(sidecar_id meter-1)
    until_true 30 'no WAL waiting' nothing_waits
    figure 'sidecar idle: RSS' "$(mib "$(rss "$id")")"
}
nothing_waits() { [ -z "$(k exec meter-1 -c postgres -- find /var/lib/postgresql/data/pgdata/pg_wal/archive_status -name '*.ready')" ]; }

# As PostgreSQL sees it: from the switch until the archiver calls the segment archived.
wal_one_by_one() {
    local begin times=() before wal
    segment meter >/dev/null
    until_true 60 'no WAL waiting' nothing_waits
    watch_memory "$id"
    before=$(cpu "$id")
    for _ in $(seq 1 "${E2E_SINGLES:-12}"); do
        sql meter "$(printf "$fill" 200000)" >/dev/null
        k exec meter-1 -c postgres -- psql -qAtX -d app -c "
            do \$\$ declare name text := pg_walfile_name(pg_switch_wal()); begin_at timestamptz := clock_timestamp(); begin
              while (select coalesce(last_archived_wal, '') < name from pg_stat_archiver) loop
                perform pg_sleep(0.002); perform pg_stat_clear_snapshot(); end loop;
              raise notice 'took %', extract(epoch from clock_timestamp() - begin_at) * 1000; end \$\$" 2>&1 |
            sed -n 's/.*took //p' >>"$STATE/singles"
    done
    peak 'WAL one by one'
    sort -n "$STATE/singles" | awk '{ v[NR] = $1 } END { printf "%.0f / %.0f ms\n", v[int((NR + 1) / 2)], v[NR] }' >"$STATE/p50"
    figure 'WAL one by one, p50 / max' "$(cat "$STATE/p50")"
    figure 'CPU per WAL' "$(awk -v a="$before" -v b="$(cpu "$id")" -v n="${E2E_SINGLES:-12}" 'BEGIN { printf "%.3f s", (b - a) / 1e9 / n }')"
}
burst() { # SEGMENTS: made while the archiver's store is out of reach of none, then timed until all are archived
    local begin before last n=$1
    # The archiver stands still while they are made: archive_command cannot be changed here, a stopped process can.
    # The brackets keep the pattern from finding the shell that looks for it.
    local archiver
    archiver=$(k exec meter-1 -c postgres -- bash -c 'for p in /proc/[0-9]*; do grep -aq "postgres: meter: archive[r]" $p/cmdline 2>/dev/null && echo ${p#/proc/}; done; true' | head -1)
    k exec meter-1 -c postgres -- bash -c "kill -STOP $archiver"
    for _ in $(seq 1 "$n"); do last=$(segment meter); done
    watch_memory "$id"
    before=$(cpu "$id") begin=$(date +%s%N)
    k exec meter-1 -c postgres -- bash -c "kill -CONT $archiver"
    until_true 600 'the burst' archived meter "$last"
    figure "burst of $n WALs" "$(seconds "$begin" "$(date +%s%N)") s"
    figure "burst of $n WALs: CPU" "$(cpu_seconds "$before" "$(cpu "$id")")"
    peak "burst of $n WALs"
}
load() {
    local begin
    begin=$(date +%s%N)
    watch_memory "$id"
    # One row per page or so, kept out of line and not compressed: about 380 MB with its WAL.
    sql meter "create table load (i int, bytes text); alter table load alter bytes set storage external;
        insert into load select i, (select string_agg(md5(i::text || j::text || random()::text), '') from generate_series(1, 31) j) from generate_series(1, ${E2E_ROWS:-300000}) i" >/dev/null
    archive_now meter 600
    figure "load of $(sql meter 'select pg_size_pretty(pg_database_size(current_database()))') until archived" "$(seconds "$begin" "$(date +%s%N)") s"
    peak 'load'
}
back_up() {
    local begin before
    sql meter checkpoint
    watch_memory "$id"
    before=$(cpu "$id") begin=$(date +%s%N)
    backup timed meter
    backup_ends timed 600
    figure 'backup' "$(seconds "$begin" "$(date +%s%N)") s"
    figure 'backup: CPU' "$(cpu_seconds "$before" "$(cpu "$id")")"
    peak backup
    figure 'backup: stored' "$(($(s3_bytes "$RUN_ID/store/meter/base/") / 1000000)) MB"
    archive_now meter
}
recover() { # NAME TARGET
    local begin pod
    begin=$(date +%s%N)
    cluster "$1" 1 "$(comes_from store meter)" "$(recovers "${2:-}")"
    until_true 120 'the job' job_runs "$1"
    pod=$(job_pod "$1")
    watch_memory "$(sidecar_id "$pod")"
    healthy "$1" 600
    figure "recovery $1: ready" "$(seconds "$begin" "$(date +%s%N)") s"
    figure "recovery $1: CPU of the job's sidecar" "$(cpu_seconds 0 "$(cat "$STATE/cpu")")"
    peak "recovery $1"
    delete_cluster "$1"
}
job_pod() { k get pods -l "cnpg.io/cluster=$1,cnpg.io/jobRole=full-recovery" -o json | jq -r '.items[-1].metadata.name // empty'; }
job_runs() { sidecar_runs "$(job_pod "$1")"; }

growth() {
    local n=${E2E_SEGMENTS:-2000} i last
    until_true 60 'no WAL waiting' nothing_waits
    figure 'before growth: RSS' "$(mib "$(rss "$id")")"
    watch_memory "$id"
    for i in $(seq 1 $((n / 50))); do
        sql meter "do \$\$ begin for i in 1..50 loop perform pg_logical_emit_message(true, 'x', i::text); perform pg_switch_wal(); commit; end loop; end \$\$" >/dev/null
        archive_now meter 600
        [ $((i % 8)) != 0 ] || figure "after $((i * 51)) segments: RSS" "$(mib "$(rss "$id")")"
    done
    peak "growth over $((n / 50 * 51)) segments"
}

make_cluster
case ${1:-all} in
all) wal_one_by_one && burst 32 && load && back_up && recover to-end && recover to-point 'targetImmediate: true, backupID: '"$(field backup/timed .status.backupId)" ;;
wal) wal_one_by_one && burst 32 ;;
backup) load && back_up ;;
recovery) load && back_up && recover to-end ;;
growth) growth ;;
esac
operator=$(kubectl -n "$OPERATOR_NS" get pods -l app=barman-cloud -o json | jq -r '.items[0].status.containerStatuses[0].containerID' | sed 's#.*//##')
figure 'operator part: RSS' "$(mib "$(rss "$operator")")"
[ "${E2E_KEEP:-0}" = 1 ] || clear_namespace
