#!/bin/bash
# Builds plugin-barman-cloud from its published packages: its program, and a root directory with Barman for its sidecar.
# Not a copy of it: the program is the Go module, Barman comes from PyPI, both unchanged and pinned.
# Prints two lines: the path of the program, then that of the root directory.
set -euo pipefail
: "${BED_DIR:?set BED_DIR to the directory that holds the env.sh of the bed}"
. "$BED_DIR/env.sh"
VERSION=v0.14.0 BARMAN=3.19.1
MODULE=github.com/cloudnative-pg/plugin-barman-cloud
src=$SRC/barman-plugin bin=$BIN/barman-plugin-$VERSION root=$BED/rootfs/barman-$BARMAN

build_program() {
  [ -e "$bin" ] && return
  mkdir -p "$src"; cd "$src"
  [ -e go.mod ] || go mod init bed/barman-plugin 2>/dev/null
  go mod edit -require="$MODULE@$VERSION"
  printf '//go:build tools\npackage tools\nimport _ "%s/cmd/manager"\n' "$MODULE" >tools.go
  timed "build $MODULE" nice go build -mod=mod -p 2 -trimpath -ldflags '-s -w' -o "$bin" "$MODULE/cmd/manager"
}

in_root() {
  chroot "$root.tmp" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    DEBIAN_FRONTEND=noninteractive HOME=/root LANG=C.UTF-8 "$@"
}

# Debian with Barman in /venv, user 26. The compiler leaves again once psycopg2 is built.
build_root() {
  [ -e "$root" ] && return
  local mirror log=$LOGS/reference-root.log tools="python3-dev build-essential libpq-dev liblz4-dev libsnappy-dev"
  mirror=$({ grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d || true; } | grep -v archive | head -1 | tr -d ' ')
  rm -rf "$root.tmp"
  nice debootstrap --variant=minbase bookworm "$root.tmp" "$mirror" >"$log" 2>&1
  cp /etc/resolv.conf "$root.tmp/etc/resolv.conf"
  cp /etc/ssl/certs/ca-certificates.crt "$root.tmp/root/ca.crt"
  in_root apt-get update -qq
  # shellcheck disable=SC2086
  in_root apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-venv libpq5 liblz4-1 libsnappy1v5 $tools >>"$log" 2>&1
  in_root python3 -m venv /venv
  in_root env PIP_CERT=/root/ca.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_DEFAULT_TIMEOUT=180 \
    nice /venv/bin/pip install --no-cache-dir "barman[azure,cloud,google,snappy,zstandard,lz4]==$BARMAN" >>"$log" 2>&1
  # shellcheck disable=SC2086
  in_root apt-get purge -y -qq $tools >>"$log" 2>&1
  in_root apt-get autoremove -y -qq --purge >>"$log" 2>&1
  in_root apt-get install -y -qq --no-install-recommends libpq5 liblz4-1 libsnappy1v5 python3 ca-certificates >>"$log" 2>&1
  in_root python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.11 /venv >>"$log" 2>&1 || true
  in_root groupdel tape; in_root groupadd -r -g 26 postgres; in_root useradd -r -u 26 -g 26 -d /var/lib/postgresql postgres
  in_root /venv/bin/barman-cloud-wal-archive --version >&2
  rm -rf "$root.tmp"/var/cache/apt/* "$root.tmp"/var/lib/apt/lists/* "$root.tmp"/usr/share/{doc,man,locale} "$root.tmp/root/ca.crt"
  : >"$root.tmp/etc/resolv.conf"
  mv "$root.tmp" "$root"
}

build_program >&2
build_root >&2
printf '%s\n%s\n' "$bin" "$root"
