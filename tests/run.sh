#!/usr/bin/env bash
# Runs every suite against real servers, which tests/servers.sh installs first.
#
#   tests/run.sh          reduced counts: what continuous integration runs
#   tests/run.sh --full   the counts that a release is judged by
#
# Random choices follow CELLARMAN_SEED; a new one is drawn and printed when it is not set. Tests
# whose server is missing are listed as not run. The last line is `N passed, N failed, N skipped`,
# skipped being those not run; the exit code is 0 only when nothing failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

case ${1:-} in
'') export CELLARMAN_FULL=0 ;;
--full) export CELLARMAN_FULL=1 ;;
*)
    sed -n '2,8s/^# \?//p' tests/run.sh >&2
    exit 2
    ;;
esac
export CELLARMAN_SEED=${CELLARMAN_SEED:-$((RANDOM * 32768 + RANDOM))}
export CELLARMAN_NOT_RUN
CELLARMAN_NOT_RUN=$(mktemp)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "$CELLARMAN_NOT_RUN"' EXIT
passed=0
failed=0
failures=()

say() { printf '\n=== %s\n' "$*"; }

# Runs one step, shown as it goes; counts the tests that it reports, or itself as one.
step() {
    local name=$1 started=$SECONDS code counts
    shift
    say "$name: $*"
    "$@" 2>&1 | tee "$scratch/output"
    code=${PIPESTATUS[0]}
    counts=$(awk '/^test result: / { p += $4; f += $6 } END { print p + 0, f + 0 }' "$scratch/output")
    passed=$((passed + ${counts% *}))
    failed=$((failed + ${counts#* }))
    if [ "$code" != 0 ]; then
        failures+=("$name")
        # A suite that did not come to its tests failed as a whole.
        [ "${counts#* }" != 0 ] || failed=$((failed + 1))
    elif [ "$counts" = '0 0' ] && ! grep -q '^test result: ' "$scratch/output"; then
        passed=$((passed + 1))
    fi
    say "$name: exit code $code after $((SECONDS - started)) s"
}

# A step that needs a part of the Rust toolchain which may not be installed.
cargo_step() {
    local name=$1 component=$2
    shift 2
    if cargo "$component" --version >/dev/null 2>&1; then
        step "$name" cargo "$@"
    else
        echo "$name: cargo $component is not installed (rustup component add)" >>"$CELLARMAN_NOT_RUN"
        passed=$((passed + 1)) # and taken off again below, with the others not run
    fi
}

# deploy/try.sh must end with the line that its users look for.
try() {
    deploy/try.sh "$@" | tee "$scratch/try"
    [ "${PIPESTATUS[0]}" = 0 ] && [ "$(tail -n 1 "$scratch/try")" = 'recovered 4 of 4 targets' ]
}

command -v cargo >/dev/null || {
    echo 'tests/run.sh: cargo is not installed: see https://rustup.rs' >&2
    exit 1
}
echo "seed: CELLARMAN_SEED=$CELLARMAN_SEED"

# The compiler's linker comes with these packages; everything else installs while cargo builds.
tests/servers.sh debian
tests/servers.sh >"$scratch/servers" 2>&1 &
servers=$!
cargo_step format fmt fmt --all --check
step build cargo build --workspace --all-targets
wait "$servers"
cat "$scratch/servers"

step units cargo test --workspace --lib --bins --no-fail-fast
step documentation cargo test --workspace --doc
step tidy cargo test --test tidy
step mutations cargo test --test mutations
export RUST_TEST_THREADS=3
step integration cargo test --test integration --no-fail-fast
step interchange cargo test --test interchange --no-fail-fast
step plugin cargo test --test suite --no-fail-fast
export CELLARMAN_PROFILE=dev
step try try
step try-s3 try --s3
[ "$CELLARMAN_FULL" = 0 ] || step fuzz tests/fuzz.sh
cargo_step lints clippy clippy --workspace --all-targets -- -D warnings

skipped=$(wc -l <"$CELLARMAN_NOT_RUN")
passed=$((passed - skipped))
say "seed: CELLARMAN_SEED=$CELLARMAN_SEED; $((SECONDS / 60)) min $((SECONDS % 60)) s"
[ ${#failures[@]} = 0 ] || echo "failed: ${failures[*]}"
sort "$CELLARMAN_NOT_RUN" | sed 's/^/not run: /'
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
