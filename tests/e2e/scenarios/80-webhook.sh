# The admission webhook: a new Cluster's target gets its backup, or is refused with the reason.
# shellcheck shell=bash disable=SC2154

[ "$PLUGIN" != reference ] || {
    say '  plugin-barman-cloud has no webhook: not run'
    exit 0
}
configuration=mutatingwebhookconfiguration/barman-cloud-recovery-target
remove_webhook() { kubectl delete "$configuration" --ignore-not-found >/dev/null 2>&1; }
trap remove_webhook EXIT

with_webhook() {
    # Certificates of somebody else are for that one to bring into the configuration.
    kubectl -n "$OPERATOR_NS" delete secret barman-cloud-client-tls barman-cloud-server-tls --ignore-not-found >/dev/null
    MANIFESTS=webhook prepare
    until_true 60 'the certificate in its configuration' has_authority
}
has_authority() { [ -n "$(kubectl get "$configuration" -o 'jsonpath={.webhooks[0].clientConfig.caBundle}')" ]; }
create() {
    object_store store
    cluster tried 1 "$(archives_to store)"
    healthy tried
    archiving tried
    backup one tried
    backup_ends one
    sql tried 'create table numbers as select generate_series(1, 100) as n'
    sql tried "select pg_create_restore_point('before the mistake')" >/dev/null
    sql tried 'delete from numbers' >/dev/null
    backup two tried
    backup_ends two
    archive_now tried
    note "backups $(field backup/one .status.backupId) $(field backup/two .status.backupId)"
}
# What the API server says of a new Cluster with this target; nothing when it takes it.
asked() { # TARGET FIELDS
    cluster again 1 "$(comes_from store tried)" "$(recovers "$1")" 2>&1
}
refused() {
    local said
    ! said=$(asked 'targetName: before the mistakes') || fail 'it was taken'
    grep -q 'before the mistake"' <<<"$said" || fail "$said"
    note "$(tail -1 <<<"$said" | head -c 300)"
    ! said=$(asked 'targetXID: "4000000"') || fail 'it was taken'
    note "$(tail -1 <<<"$said" | head -c 300)"
    ! said=$(asked "targetTime: \"$(date -u -d '+1 hour' '+%F %T')+00\"") || fail 'it was taken'
    note "$(tail -1 <<<"$said" | head -c 300)"
}
filled() {
    asked 'targetName: before the mistake'
    equal backupID "$(field backup/one .status.backupId)" "$(field cluster/again .spec.bootstrap.recovery.recoveryTarget.backupID)"
    healthy again 400
    equal rows 100 "$(sql again 'select count(*) from numbers')"
}
# Its target stays in its spec for good: a change is never refused for it, not even when the archive has gone.
changed() {
    elsewhere
    k annotate cluster/again "changed=$(date +%s)" --overwrite >/dev/null
    k patch cluster/again --type=merge -p '{"spec": {"description": "changed"}}' >/dev/null
    delete_cluster again
}
elsewhere() { k patch objectstore/store --type=merge -p "{\"spec\": {\"configuration\": {\"destinationPath\": \"s3://$S3_BUCKET/$RUN_ID/elsewhere\"}}}" >/dev/null; }
away() {
    local said
    k patch objectstore/store --type=merge -p '{"spec": {"configuration": {"endpointURL": "http://minio.default:1"}}}' >/dev/null
    # The plugin reads ObjectStores from its cache.
    until_true 30 'the warning' warned
    note "$(head -1 "$STATE/said" | head -c 300)"
    delete_cluster again
}
warned() {
    k delete cluster/again --ignore-not-found --wait=true >/dev/null
    asked "targetTime: \"2026-01-01 00:00:00+00\"" >"$STATE/said" && grep -qi '^Warning' "$STATE/said"
}

step 'install the plugin with the webhook' with_webhook
step 'a cluster with a restore point between two backups' create
step 'targets that recovery would not reach are refused with the reason' refused
step 'a name alone gets its backup, and is recovered to' filled
step 'a Cluster is changed whatever has become of its archive' changed
step 'while the store is away, Clusters pass with a warning' away
