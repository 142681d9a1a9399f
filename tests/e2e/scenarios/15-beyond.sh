# What plugin-barman-cloud does not do: arguments that nobody knows, Secrets with a line end, credentials that change
# under way, a backup to another store, conditions and Events that name the cause.
# shellcheck shell=bash disable=SC2154

create() {
    # A line end at the end of a value is what `echo` and most editors leave.
    k create secret generic ended --from-literal=user="$S3_USER"$'\n' --from-literal=pass="$S3_PASS"$'\n' >/dev/null
    object_store store 'instanceSidecarConfiguration: {additionalContainerArgs: ["--no-such-argument=1", "--pprof-server"], retentionPolicyIntervalSeconds: 5}'
    k patch objectstore/store --type merge -p '{"spec":{"configuration":{"s3Credentials":{"accessKeyId":{"name":"ended"},"secretAccessKey":{"name":"ended"}}}}}' >/dev/null
    object_store second
    cluster odd 1 "$(archives_to store)"
    healthy odd
    archiving odd
    sql odd 'create table numbers as select generate_series(1, 100) as n'
    equal 'restarts of the sidecar' 0 "$(restarts)"
}
restarts() { k get pod/odd-1 -o json | jq -r ".status.initContainerStatuses[] | select(.name==\"$SIDECAR\") | .restartCount"; }

conditions() {
    until_true 60 'CredentialsValid' condition objectstore/store CredentialsValid True
    until_true 60 'Reachable' condition objectstore/store Reachable True
    note "$(kubectl -n "$NS" get objectstores 2>&1 | tr -s ' ' | paste -sd';')"
}
credentials_change() {
    local pod
    pod=$(field pod/odd-1 .metadata.uid)
    k create secret generic ended --from-literal=user="$S3_USER" --from-literal=pass=wrong-for-now --dry-run=client -o yaml | k apply -f - >/dev/null 2>&1
    until_true 180 'archiving to be refused' refused_by_now
    note "$(field cluster/odd '.status.conditions[?(@.type=="ContinuousArchiving")].message' | head -c 300)"
    k create secret generic ended --from-literal=user="$S3_USER" --from-literal=pass="$S3_PASS" --dry-run=client -o yaml | k apply -f - >/dev/null 2>&1
    until_true 180 'archiving to go on' condition cluster/odd ContinuousArchiving True
    archive_now odd
    equal 'the pod' "$pod" "$(field pod/odd-1 .metadata.uid)"
    equal 'restarts of the sidecar' 0 "$(restarts)"
}
# What was looked up stays good for some seconds, so segments are ended until one is refused.
refused_by_now() {
    condition cluster/odd ContinuousArchiving False && return
    sql odd "select pg_logical_emit_message(true, 'e2e', ''), pg_switch_wal()" >/dev/null
    return 1
}
other_store() {
    backup apart odd primary 'barmanObjectName: second, serverName: elsewhere'
    backup_ends apart
    s3_get "$RUN_ID/second/elsewhere/base/$(field backup/apart .status.backupId)/backup.info" | grep -q '^status=DONE'
    no_holes_below "$RUN_ID/second/elsewhere"
    s3_list "$RUN_ID/second/elsewhere/wals/" | grep -q "$(field backup/apart .status.beginWal)"
    s3_list "$RUN_ID/second/elsewhere/wals/" | grep -q "$(field backup/apart .status.endWal)"
    note "$(k get backup/apart -o json | jq -c .status.pluginMetadata)"
}
# The maintenance loop, which runs every 5 s here, must look for it where it is.
object_stays() {
    local until=$((SECONDS + 20))
    while [ $SECONDS -lt $until ]; do
        field_is backup/apart .status.phase completed || return 1
        sleep 1
    done
}
recovers_from_other_store() {
    cluster apart 1 "$(comes_from second elsewhere)" "$(recovers '')"
    healthy apart 400
    equal rows 100 "$(sql apart 'select count(*) from numbers')"
}
store_missing() {
    cluster lost 1 "$(archives_to nowhere)"
    until_true 60 'the operator to say what is missing' names_the_store
    note "$(k get events --field-selector involvedObject.name=lost -o json | jq -r '[.items[] | select(.message | contains("nowhere")) | "\(.reason): \(.message)"][0] // ""' | head -c 300)"
    object_store nowhere
    healthy lost 300
}
names_the_store() { k get cluster/lost -o json | jq -r '.status.phaseReason // ""' | grep -q nowhere || k get events --field-selector involvedObject.name=lost -o json | jq -r '.items[].message' | grep -q nowhere; }
# CloudNativePG 1.30 knows the calls that validate a Cluster and makes none of them: an Event on the Cluster says what is wrong.
findings_are_told() {
    cluster storeless 1 "plugins: [{name: $PLUGIN_NAME, isWALArchiver: true}]"
    until_true 60 'the Event' describes_finding
    note "$(k get events --field-selector involvedObject.name=storeless,reason=InvalidPluginParameters -o json | jq -r '.items[0].message' | head -c 300)"
    k delete cluster/storeless --wait=false >/dev/null
}
# As a user looks; without the uid of the Cluster an Event would not be among them.
describes_finding() {
    local said
    said=$(k describe cluster/storeless)
    grep 'Warning.*InvalidPluginParameters.*spec.plugins\[0\].parameters.barmanObjectName' <<<"$said"
}

if [ "$PLUGIN" = reference ]; then
    say '  not for plugin-barman-cloud: not run'
    exit 0
fi
step 'install the plugin' prepare
step 'unknown arguments and Secrets with a line end: a cluster archives' create
step 'the conditions of the ObjectStore' conditions
step 'credentials change under way, without a restart' credentials_change
step 'a backup to another store, with its WAL' other_store
step 'its Backup object stays' object_stays
step 'recovery from that store alone: 100 rows' recovers_from_other_store
step 'a missing ObjectStore is named, and its coming noticed' store_missing
step 'a Cluster that will not archive: an Event on it says why' findings_are_told
