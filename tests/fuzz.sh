#!/usr/bin/env bash
# Fuzzes every reader for a while, from the fixtures on.
#
#   tests/fuzz.sh              each target of fuzz/ for 25 s
#   tests/fuzz.sh SECONDS      each for so long
#   tests/fuzz.sh SECONDS NAME one of them
#
# What they find lies in fuzz/artifacts/<target>/. Without cargo-fuzz or a nightly toolchain every
# target is reported as not run. The last line is that of a test run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

seconds=${1:-25}
cache=${CELLARMAN_TEST_CACHE:-/var/tmp/cellarman-tests}
fixtures=tests/fixtures/postgresql
export PATH="$PATH:$cache/cargo-fuzz/bin"
mapfile -t targets < <(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')
[ -z "${2:-}" ] || targets=("$2")
passed=0
failed=0

tests/servers.sh fuzz
if ! cargo +nightly fuzz --version; then
    for target in "${targets[@]}"; do
        echo "fuzz $target: cargo-fuzz or a nightly toolchain is not installed" |
            tee -a "${CELLARMAN_NOT_RUN:-/dev/null}"
    done
    # Counted as passed, and taken off again with the others that were not run.
    echo "test result: ok. ${#targets[@]} passed; 0 failed"
    exit 0
fi

# The corpus of a target begins with the files that its reader is for.
seed() {
    local target=$1 corpus=fuzz/corpus/$1
    mkdir -p "$corpus"
    case $target in
    backup_info) cp src/barman/backup_info/barman-3.19.info "$corpus" ;;
    backup_manifest)
        for manifest in "$fixtures"/backup_manifest-*.zst; do
            zstd -qdf "$manifest" -o "$corpus/$(basename "$manifest" .zst)"
        done
        ;;
    literal) sed -n 's/^[a-z_]*=\([[(\x27{].*\)/\1/p' src/barman/backup_info/barman-3.19.info | split -l 1 - "$corpus/" ;;
    wal_header) cp "$fixtures"/wal-* "$corpus" ;;
    wal_records)
        for segment in "$fixtures"/segment-*.zst; do
            zstd -qdf "$segment" -o "$corpus/$(basename "$segment" .zst)"
        done
        ;;
    control) cp "$fixtures"/pg_control-* "$corpus" ;;
    history) cp "$fixtures"/*.history* "$corpus" ;;
    label) cp "$fixtures"/backup_label-* "$fixtures"/*.backup "$corpus" ;;
    tar) for tar in "$fixtures"/*.tar.zst; do zstd -qdf "$tar" -o "$corpus/$(basename "$tar" .zst)"; done ;;
    store_manifest) sed -n '/^apiVersion: barman/,/^```/p' README.md | sed '$d' >"$corpus/readme.yaml" ;;
    decompress) cp "$fixtures"/*.zst "$corpus" ;;
    esac
}

# No sanitizer: there is no unsafe code of ours to watch, and it builds and runs in half the time.
cargo +nightly fuzz build --sanitizer none || exit 1
for target in "${targets[@]}"; do
    seed "$target"
    if cargo +nightly fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" \
        -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 2>&1 |
        grep -E '^Done|panicked|ERROR|stat::number_of_executed|artifact'; [ "${PIPESTATUS[0]}" = 0 ]; then
        passed=$((passed + 1))
        echo "fuzz $target: ok"
    else
        failed=$((failed + 1))
        echo "fuzz $target: FAILED"
    fi
done
echo "test result: fuzz. $passed passed; $failed failed"
[ "$failed" = 0 ]
