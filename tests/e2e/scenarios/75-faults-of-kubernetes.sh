# What Kubernetes does to the plugin: an API server that does not answer, certificates that are over.
# shellcheck shell=bash disable=SC2154

create() {
    object_store store
    cluster tried 1 "$(archives_to store)"
    healthy tried
    archiving tried
    archive_now tried
}
# SQL without the API server: through containerd.
sql_inside() { $CTR tasks exec --exec-id "e2e-$RANDOM" --user 26:26 "$postgres" psql -h /controller/run -U postgres -qAtX -d app -c "$1"; }
archived_inside() { [ "$(sql_inside "select last_archived_wal >= '$1' from pg_stat_archiver")" = t ]; }
api_away() {
    local api n=0 wal until
    api=$(cat "$RUN/kube-apiserver.pid")
    postgres=$(k get "pod/$(primary tried)" -o json | jq -r '.status.containerStatuses[] | select(.name=="postgres") | .containerID' | sed 's#.*//##')
    # shellcheck disable=SC2064
    trap "kill -CONT $api" EXIT
    kill -STOP "$api"
    # Longer than anything that the sidecar may have kept of the API.
    until=$((SECONDS + 40))
    while [ $SECONDS -lt $until ]; do
        sql_inside "create table t$n ()"
        wal=$(sql_inside 'select pg_walfile_name(pg_switch_wal())')
        until_true 60 "the archiving of $wal" archived_inside "$wal"
        n=$((n + 1))
    done
    kill -CONT "$api"
    note "$n segments archived in 40 s without the API server"
    until_true 120 'the API server' kubectl get --raw /readyz
    # The operator has lost its lease meanwhile and starts anew; its webhook stands before every change of a Cluster.
    until_true 180 "the operator's webhook" k annotate cluster/tried "awake=$(date +%s)" --overwrite
    equal failures 0 "$(sql tried 'select failed_count from pg_stat_archiver')"
    healthy tried
}
certificate() { # VERB FILE CN USAGE DAYS: self-signed, into its Secret; what is applied leaves it the plugin's own, what replaces it does not
    local verb=$1
    shift
    local at=$STATE/$1
    openssl req -newkey rsa:2048 -nodes -keyout "$at.key" -out "$at.csr" -subj "/CN=$2"
    printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=DNS:%s\n' "$3" "$2" >"$at.ext"
    openssl x509 -req -in "$at.csr" -signkey "$at.key" -days "$4" -extfile "$at.ext" -out "$at.crt"
    kubectl -n "$OPERATOR_NS" create secret tls "barman-cloud-$1-tls" --cert="$at.crt" --key="$at.key" --dry-run=client -o yaml | kubectl "$verb" -f - >/dev/null
}
server_certificate() { kubectl -n "$OPERATOR_NS" get secret barman-cloud-server-tls -o 'jsonpath={.data.tls\.crt}' | base64 -d; }
# One that the plugin has made is made anew when it is over.
renewed() {
    server_certificate | openssl x509 -checkend 0 -noout
    certificate apply server barman-cloud serverAuth -1
    until_true 60 'a new certificate' eval 'server_certificate | openssl x509 -checkend 0 -noout'
    k annotate cluster/tried "renewed=$(date +%s)" --overwrite >/dev/null
    archive_now tried
    until_true 240 'the cluster to be healthy' healthy_now tried
}
# Certificates that are over: the operator says so; new ones in the Secrets work without a restart of the plugin.
expired() {
    local pod
    pod=$(kubectl -n "$OPERATOR_NS" get pods -l app=barman-cloud -o jsonpath='{.items[0].metadata.name}')
    certificate replace client barman-cloud-client clientAuth 2
    certificate replace server barman-cloud serverAuth -1
    until_true 200 'the operator to refuse it' plugin_failure
    note "$(field cluster/tried .status.phase): $(field cluster/tried .status.phaseReason | head -c 200)"
    # Archiving does not need the operator part.
    archive_now tried
    certificate replace server barman-cloud serverAuth 2
    until_true 240 'the cluster to be healthy again' healthy_now tried
    equal 'the pod of the operator part' "$pod" "$(kubectl -n "$OPERATOR_NS" get pods -l app=barman-cloud -o jsonpath='{.items[0].metadata.name}')"
}
# The operator asks the plugin when a Cluster changes, and it takes new certificates when it sees them: asked before, it goes
# on over the connection that it has.
plugin_failure() {
    k annotate cluster/tried "look-again=$((SECONDS / 5))" --overwrite >/dev/null
    field cluster/tried .status.phase | grep -qi plugin || fail "$(field cluster/tried .status.phase)"
}


step 'install the plugin' prepare
step 'a cluster that archives' create
step 'the API server does not answer for 40 s: archiving goes on' api_away
[ "$PLUGIN" = reference ] || step 'a certificate of its own that is over is made anew' renewed
step 'expired certificates of somebody else are told, new ones work without a restart' expired
