#!/usr/bin/env bash
# Shows Cellarman at work on a scratch PostgreSQL: archive, back up, lose a table, recover it.
#
#   deploy/try.sh           a local directory as the store
#   deploy/try.sh --s3      MinIO as the store
#   deploy/try.sh --keep    leave the servers' directory behind
#
# Rust is the one prerequisite; PostgreSQL comes from the distribution's packages if it is missing,
# and MinIO is built with Go. Everything it starts it stops, and its directory goes at the end.
# CELLARMAN_BIN=path takes a built program; CELLARMAN_PROFILE=dev builds a debug one.
set -euo pipefail

store_kind=directory keep=false
for argument in "$@"; do
    case $argument in
    --s3) store_kind=s3 ;;
    --keep) keep=true ;;
    *)
        sed -n '2,6s/^# \?//p' "$0" >&2
        exit 2
        ;;
    esac
done
here=$(cd "$(dirname "$0")/.." && pwd)
bold='' dim='' red='' green='' plain=''
if [ -t 1 ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
fi

step_number=0
step() {
    step_number=$((step_number + 1))
    printf '%s%d/7  %-11s%s %s\n' "$bold" $step_number "$1" "$plain" "$2"
}
more() { printf '                 %s%s%s\n' "$dim" "$*" "$plain"; }
fail() {
    printf '%stry.sh: %s%s\n' "$red" "$*" "$plain" >&2
    exit 1
}

# --- What is needed -------------------------------------------------------------------------

find_postgresql() {
    local initdb
    initdb=$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
    [ -n "$initdb" ] || initdb=$(command -v initdb || true)
    [ -n "$initdb" ] && [ -x "$(dirname "$initdb")/pgbench" ] || return 1
    postgresql=$(dirname "$(readlink -f "$initdb")")
}

install_postgresql() {
    local root=()
    command -v apt-get >/dev/null ||
        fail 'PostgreSQL is not installed, and there is no apt-get: install it with your own packages'
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail 'PostgreSQL is not installed: apt-get install postgresql, as root'
        root=(sudo)
    fi
    more 'installing PostgreSQL from the distribution'
    { "${root[@]}" apt-get update && "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends postgresql postgresql-contrib; } >/dev/null 2>&1 ||
        fail 'apt-get install postgresql failed: run it by hand to see why'
    find_postgresql || fail 'PostgreSQL was installed, but initdb and pgbench are not to be found'
}

build() {
    local profile=${CELLARMAN_PROFILE:-release} folder started=$SECONDS target
    if [ -n "${CELLARMAN_BIN:-}" ]; then
        program=$(readlink -f "$CELLARMAN_BIN")
        return
    fi
    command -v cargo >/dev/null ||
        fail 'Rust is the one prerequisite, and cargo is not installed: see https://rustup.rs'
    folder=$profile
    [ "$profile" != dev ] || folder=debug
    (cd "$here" && cargo build --quiet --profile "$profile" --bin cellarman) || fail 'the build failed'
    target=$(cd "$here" && cargo metadata --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    program=$target/$folder/cellarman
    build_note=" ($profile build, $((SECONDS - started)) s)"
}

# --- Servers --------------------------------------------------------------------------------

# As the user that may run PostgreSQL: it refuses to run as root.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        # Unlike su and runuser, this becomes the program: a signal sent to it arrives.
        setpriv --reuid postgres --regid postgres --init-groups env HOME="$scratch" "$@"
    else
        "$@"
    fi
}

cellarman() { as_server "$scratch/cellarman" "${options[@]}" "$@"; }

# sql CLUSTER STATEMENT
sql() {
    as_server "$postgresql/psql" -h "$scratch/$1.run" -U postgres -d postgres -XqAt -v ON_ERROR_STOP=1 \
        -f - <<<"$2"
}

# start CLUSTER [SETTING...]
start() {
    local name=$1 settings="-k $scratch/$1.run -c listen_addresses=" setting
    shift
    for setting in "$@"; do settings+=" -c $setting"; done
    [ -d "$scratch/$name.run" ] || as_server mkdir "$scratch/$name.run"
    as_server "$postgresql/pg_ctl" -D "$scratch/$name" -l "$scratch/$name.log" -o "$settings" -w -t 120 start \
        >/dev/null || {
        tail -n 20 "$scratch/$name.log" >&2
        fail "PostgreSQL did not start in $scratch/$name: its log is above"
    }
}

stop() {
    [ ! -e "$scratch/$1/postmaster.pid" ] ||
        as_server "$postgresql/pg_ctl" -D "$scratch/$1" -m immediate -w stop >/dev/null 2>&1 || true
}

start_minio() {
    local cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests} attempt port
    [ -x "$cache/bin/minio" ] || more 'building MinIO with Go, which takes some minutes the first time'
    "$here/tests/servers.sh" minio >"$scratch/servers.log" 2>&1 || true
    [ -x "$cache/bin/minio" ] || fail "MinIO is not there: $(cat "$cache/missing/minio" 2>/dev/null)"
    export MINIO_ROOT_USER=cellarman MINIO_ROOT_PASSWORD=only-for-this-try MINIO_BROWSER=off
    export AWS_ACCESS_KEY_ID=$MINIO_ROOT_USER AWS_SECRET_ACCESS_KEY=$MINIO_ROOT_PASSWORD AWS_REGION=us-east-1
    as_server mkdir "$scratch/minio"
    for attempt in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 10000))
        HOME=$scratch "$cache/bin/minio" server --quiet --address "127.0.0.1:$port" "$scratch/minio" \
            >"$scratch/minio.log" 2>&1 &
        minio=$!
        wait_until 'MinIO to start' minio_answers_or_dies "$port"
        ! kill -0 "$minio" 2>/dev/null || break
    done
    kill -0 "$minio" 2>/dev/null || fail "MinIO does not start: $(cat "$scratch/minio.log")"
    options=(--store s3://cellar/try --endpoint-url "http://127.0.0.1:$port")
    store_note="MinIO on 127.0.0.1:$port, s3://cellar/try"
}

minio_answers_or_dies() {
    ! kill -0 "$minio" 2>/dev/null || (
        exec 3<>"/dev/tcp/127.0.0.1/$1" &&
            printf 'GET /minio/health/ready HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3 &&
            read -r answer <&3 && [[ $answer == *' 200 '* ]]
    ) 2>/dev/null
}

# wait_until WHAT COMMAND...: the command says when, asked ten times a second for two minutes.
wait_until() {
    local what=$1 deadline=$((SECONDS + 120))
    shift
    while [ $SECONDS -lt $deadline ]; do
        ! "$@" || return 0
        sleep 0.1
    done
    fail "waited two minutes for $what"
}

clean_up() {
    local code=$? name
    trap - EXIT INT TERM
    [ -z "${workload:-}" ] || kill "$workload" 2>/dev/null || true
    if [ -n "${scratch:-}" ]; then
        for name in primary time xid lsn name; do stop $name; done
        [ -z "${minio:-}" ] || kill "$minio" 2>/dev/null || true
        wait 2>/dev/null || true
        if $keep; then echo "kept: $scratch" >&2; else rm -rf "$scratch"; fi
    fi
    exit $code
}

# --- The story ------------------------------------------------------------------------------

# What a table holds, in one word: how many rows, and a digest of them all.
CONTENT="SELECT count(*) || ':' || md5(coalesce(string_agg(md5(o::text), '' ORDER BY id), '')) FROM orders o"

make_primary() {
    as_server "$postgresql/initdb" -D "$scratch/primary" -U postgres -A trust -E UTF8 --locale=C -k \
        --wal-segsize=1 >"$scratch/initdb.log" 2>&1 || fail "initdb failed: $(cat "$scratch/initdb.log")"
    as_server tee -a "$scratch/primary/postgresql.conf" >/dev/null <<CONF
wal_level = replica
archive_mode = on
archive_command = '$scratch/cellarman ${options[*]} wal archive %p'
max_wal_size = 256MB
timezone = UTC
log_timezone = UTC
CONF
    start primary
    sql primary 'CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(), customer int NOT NULL, note text NOT NULL)'
}

start_workload() {
    as_server tee "$scratch/workload.sql" >/dev/null <<'SQL'
INSERT INTO orders (customer, note) SELECT random() * 1000, repeat(md5(random()::text), 8);
SQL
    as_server "$postgresql/pgbench" -h "$scratch/primary.run" -U postgres -n -c 2 -R 400 -T 3600 \
        -f "$scratch/workload.sql" postgres >"$scratch/workload.log" 2>&1 &
    workload=$!
    wait_until 'the first orders' has_orders 200
}

has_orders() { [ "$(sql primary 'SELECT count(*) FROM orders')" -ge "$1" ]; }

event() { events+=("$(date -u +%H:%M:%S)|$1|$2|$3"); }

# mark KIND STATEMENTS: notes the target that they give, and what the table holds there. The lock
# holds back the workload's next order meanwhile, so what must come back is known to the row.
mark() {
    local kind=$1 answer orders
    orders=$(sql primary 'SELECT count(*) FROM orders')
    wait_until 'more orders' has_orders $((orders + 300))
    answer=$(sql primary "BEGIN; LOCK TABLE orders IN SHARE MODE; $2; $CONTENT; COMMIT")
    target[$kind]=$(head -n 1 <<<"$answer")
    content[$kind]=$(tail -n 1 <<<"$answer")
    event mark "$kind" "${content[$kind]%%:*}"
}

is_archived() { [ -e "$scratch/primary/pg_wal/archive_status/$1.done" ] || [ ! -e "$scratch/primary/pg_wal/$1" ]; }

is_recovered() {
    [ -e "$scratch/$1/postmaster.pid" ] || fail "the recovery failed: $(tail -n 20 "$scratch/$1.log")"
    [ "$(sql "$1" 'SELECT pg_is_in_recovery()' 2>/dev/null)" = f ]
}

recover() {
    local kind=$1 started=$SECONDS
    if cellarman restore --pgdata "$scratch/$kind" "--target-$kind" "${target[$kind]}" \
        --target-action promote >"$scratch/$kind.restore.log" 2>&1; then
        start "$kind" archive_mode=off
        wait_until "the recovery to the $kind" is_recovered "$kind"
        recovered[$kind]=$(sql "$kind" "$CONTENT")
        stop "$kind"
    else
        sed 's/^/    /' "$scratch/$kind.restore.log" >&2
    fi
    if [ "${recovered[$kind]:-}" = "${content[$kind]}" ]; then
        good=$((good + 1))
        more "$(printf '%-5s %-32s %6d rows, as they were  (%d s)' "$kind" "${target[$kind]}" \
            "${content[$kind]%%:*}" $((SECONDS - started)))"
    else
        more "$kind ${target[$kind]}: $red NOT as it was$plain"
    fi
}

row() { printf '  %s %s %-50s %9s   %s\n' "$1" "$2" "$3" "$4" "$5"; }

show_timeline() {
    local line at what detail rows verdict
    printf '\n  %s%-8s   %-50s %9s   %s%s\n' "$bold" 'UTC' 'what happened' 'orders' 'recovered' "$plain"
    for line in "${events[@]}"; do
        IFS='|' read -r at what detail rows <<<"$line"
        case $what in
        begin) row "$at" '┬' "$detail" "$rows" '' ;;
        backup) row "$at" '█' "$detail" "$rows" '' ;;
        drop) row "$at" "${red}✗${plain}" "$detail" "$rows" '' ;;
        mark)
            verdict="${red}no${plain}"
            [ "${recovered[$detail]:-}" != "${content[$detail]}" ] ||
                verdict="${green}◀── ${recovered[$detail]%%:*} ✓${plain}"
            row "$at" '◆' "${label[$detail]} ${target[$detail]}" "$rows" "$verdict"
            ;;
        esac
        [ "$what" = drop ] || printf '           │\n'
    done
    echo
}

find_postgresql || install_postgresql
build
trap clean_up EXIT
trap 'exit 130' INT TERM
scratch=$(mktemp -d /tmp/cellarman-try.XXXXXX)
chmod 755 "$scratch"
[ "$(id -u)" != 0 ] || chown postgres: "$scratch"
install -m 755 "$program" "$scratch/cellarman"
cd "$scratch"
step build "$("$scratch/cellarman" --version)${build_note:-}"

options=(--store "file://$scratch/store")
store_note="directory $scratch/store"
[ $store_kind = directory ] || start_minio
options+=(--server shop)
cellarman check --create >"$scratch/check.log" 2>&1 || fail "the store does not work: $(cat "$scratch/check.log")"
step store "$store_note"

declare -A target content recovered
declare -A label=([time]='mark: the time' [xid]='mark: the transaction' [lsn]='mark: the LSN' [name]='mark: the restore point')
events=() good=0
make_primary
step PostgreSQL "$(sql primary 'SHOW server_version' | cut -d ' ' -f 1), its WAL goes through \`cellarman wal archive\`"
event begin 'table orders is made, the workload begins' 0
start_workload
step workload '400 orders a second, until the accident'

rows_before=$(sql primary 'SELECT count(*) FROM orders')
event backup 'base backup begins, under load' "$rows_before"
export PGHOST=$scratch/primary.run PGUSER=postgres PGDATABASE=postgres
cellarman backup create --immediate-checkpoint --compression lz4 --name before-lunch >"$scratch/backup.log" 2>&1 ||
    fail "the backup failed: $(cat "$scratch/backup.log")"
event backup 'base backup ends: DONE' "$(sql primary 'SELECT count(*) FROM orders')"
step backup "$(cellarman backup list |
    awk -F '  +' '$3 == "DONE" { print $1 ": " $6 ", stored as " $7 ", with all the WAL it needs" }')"

mark time 'SELECT clock_timestamp()'
mark xid "INSERT INTO orders (customer, note) VALUES (0, 'the last'); SELECT pg_current_xact_id()"
mark lsn 'SELECT pg_current_wal_insert_lsn()'
mark name "SELECT 'noon' FROM pg_create_restore_point('noon')"
wait_until 'orders after the last mark' has_orders $((${content[name]%%:*} + 150))
lost=$(sql primary 'SELECT count(*) FROM orders')
kill "$workload" 2>/dev/null || true
sql primary 'DROP TABLE orders'
event drop 'DROP TABLE orders: the accident' "$lost"
last=$(sql primary 'SELECT pg_walfile_name(pg_current_wal_insert_lsn())')
sql primary 'SELECT pg_switch_wal()' >/dev/null
wait_until 'the last WAL file to be archived' is_archived "$last"
archived=$(sql primary 'SELECT archived_count FROM pg_stat_archiver')
step marks "a time, a transaction, an LSN and a restore point; then the table is dropped"
more "$archived WAL files archived"

step recover 'to each mark, in four new clusters'
for kind in time xid lsn name; do recover $kind; done
show_timeline
echo "recovered $good of 4 targets"
[ $good = 4 ]
