#!/usr/bin/env bash
# Builds cellarman-plugin as one static program that needs no file of a distribution: for an image without shell and libc.
#
#   deploy/build-static.sh [CARGO ARGUMENT...]     prints the path of the program
#
# glibc, linked statically, not musl: its allocator is several times faster with threads, and since glibc 2.34 its
# resolver is whole in a static program (names of Services resolve in an image that has no library at all).
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-gnu
# A target is named so that build scripts and macros, which must be dynamic, do not see the flags.
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
cargo build --release --locked --target "$target" -p cellarman-plugin "$@" >&2
program=${CARGO_TARGET_DIR:-target}/$target/release/cellarman-plugin
# Line tables stay in it, for whoever looks into a crash; what goes into an image is stripped (install -s).
# A program that still asks for an interpreter would not start in an empty image.
if LC_ALL=C readelf -l "$program" | grep -q 'Requesting program interpreter'; then
    echo "$program is not static" >&2
    exit 1
fi
echo "$program"
