#!/usr/bin/env bash
# The plugin on a real Kubernetes with the real CloudNativePG operator: every step printed with its wall time.
#
#   tests/e2e/run.sh [SCENARIO...]    all of them in order, or those named (file names in scenarios/, without .sh)
#
# BED_DIR        the directory that holds the bed's env.sh: BED_DIR/env.sh must set KUBECONFIG and the object store
# PLUGIN         cellarman (default), or reference: plugin-barman-cloud, which proves the script and gives figures to compare with
# PLUGIN_BINARY  the static program; without it target/x86_64-unknown-linux-gnu/release/cellarman-plugin
# PLUGIN_IMAGE   an image that is in the bed already, in place of one made from PLUGIN_BINARY
# E2E_KEEP       1: leave the last scenario's objects behind for a look
#
# The exit code is 0 only when every step held, 1 when one did not, 2 when it cannot run here.
set -uo pipefail
# One function, so that the file is read whole before it runs: a run takes long, and the file may change meanwhile.
main() {
    here=$(cd "$(dirname "$0")" && pwd)
    if [ ! -e "${BED_DIR:-}/env.sh" ]; then
        echo "tests/e2e/run.sh needs BED_DIR, the directory that holds the env.sh of a running bed (Kubernetes with CloudNativePG)" >&2
        exit 2
    fi
    # shellcheck source=/dev/null
    . "$BED_DIR/env.sh"
    for tool in kubectl jq curl openssl; do
        command -v "$tool" >/dev/null || {
            echo "tests/e2e/run.sh needs $tool" >&2
            exit 2
        }
    done
    PLUGIN=${PLUGIN:-cellarman}
    # shellcheck source=lib.sh
    . "$here/lib.sh"
    # shellcheck source=plugin.sh
    . "$here/plugin.sh"
    trap 'rm -rf "$STATE"' EXIT

    build_kubectl_cnpg || exit 2
    if [ "$PLUGIN" != reference ] && [ -z "${PLUGIN_IMAGE:-}" ] && [ ! -x "$PLUGIN_BINARY" ]; then
        echo "tests/e2e/run.sh needs $PLUGIN_BINARY: build it with deploy/build-static.sh, or name another in PLUGIN_BINARY" >&2
        exit 2
    fi

    if [ $# = 0 ]; then
        for file in "$here"/scenarios/*.sh; do set -- "$@" "$(basename "$file" .sh)"; done
    fi
    say "plugin: $PLUGIN, namespace: $NS, bucket path: $RUN_ID"
    failed=()
    for scenario in "$@"; do
        begin=$SECONDS
        say "== $scenario"
        # A scenario is a subshell: its first failed step ends it, not the others.
        (
            # Clusters of one name are several: each scenario has its part of the bucket.
            RUN_ID=$RUN_ID-${scenario%%-*}
            # shellcheck source=/dev/null
            . "$here/scenarios/$scenario.sh"
        )
        code=$?
        [ "$code" = 0 ] || failed+=("$scenario")
        say "== $scenario: $([ "$code" = 0 ] && echo held || echo FAILED) after $((SECONDS - begin)) s"
        [ "${E2E_KEEP:-0}" = 1 ] || clear_namespace
    done
    [ ${#failed[@]} = 0 ] || {
        say "failed: ${failed[*]}"
        exit 1
    }
    say "all held"
}
main "$@"
exit
