# Install, archive, back up, schedule, delete, and recover to each kind of target: what every user does.
# shellcheck shell=bash disable=SC2154

not_refused() { sql origin "create table numbers as select generate_series(1, 100) as n" && equal rows 100 "$(sql origin 'select count(*) from numbers')"; }

create() {
    object_store store
    cluster origin 1 "$(archives_to store)"
    healthy origin
    archiving origin
}

status_fields() { # BACKUP: every field that a plugin's backup has
    local status
    status=$(k get "backup/$1" -o json)
    local name
    for name in backupId backupName phase startedAt stoppedAt beginWal endWal beginLSN endLSN method online \
        majorVersion instanceID.podName instanceID.ContainerID pluginMetadata.timeline pluginMetadata.version pluginMetadata.name \
        pluginMetadata.displayName pluginMetadata.clusterUID pluginMetadata.pluginName; do
        not_empty "status.$name" "$(jq -r ".status.$name" <<<"$status")"
    done
    jq -e '.status | (.backupId | test("^[0-9]{8}T[0-9]{6}$")) and (.beginWal | test("^[0-9A-F]{24}$")) and (.endWal | test("^[0-9A-F]{24}$"))
        and (.beginLSN | test("^[0-9A-F]+/[0-9A-F]+$")) and (.startedAt <= .stoppedAt) and (.startedAt > "2020")' <<<"$status" ||
        fail "$(jq -c .status <<<"$status")"
    equal clusterUID "$(field cluster/origin .metadata.uid)" "$(jq -r .status.pluginMetadata.clusterUID <<<"$status")"
    equal 'Cluster condition LastBackupSucceeded' True "$(field cluster/origin '.status.conditions[?(@.type=="LastBackupSucceeded")].status')"
}
first_backup() {
    backup first origin
    backup_ends first
    status_fields first
    s3_get "$RUN_ID/store/origin/base/$(field backup/first .status.backupId)/backup.info" | grep -q '^status=DONE'
}

# 100 rows, and each kind of target right after them; then a table that no recovery to a target may have.
rows_and_targets() {
    sql origin "create table numbers (n int)"
    remember xid "$(sql origin "begin; insert into numbers select generate_series(1, 100); select pg_current_xact_id(); commit")"
    remember lsn "$(sql origin "select pg_create_restore_point('hundred')")"
    remember time "$(sql origin "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'")"
    sql origin "select pg_sleep(1.1)"
    backup second origin
    backup_ends second
    remember first "$(field backup/first .status.backupId)"
    remember second "$(field backup/second .status.backupId)"
    sql origin "create table late as select 1"
    archive_now origin
    note "xid $(recall xid), lsn $(recall lsn), time $(recall time), backups $(recall first) $(recall second)"
}

scheduled_backup() { # NAME OWNER
    k apply -f - >/dev/null <<Y
apiVersion: postgresql.cnpg.io/v1
kind: ScheduledBackup
metadata: {name: $1, namespace: $NS}
spec:
  schedule: "0 */1 * * * *"
  immediate: true
  backupOwnerReference: $2
  cluster: {name: origin}
  method: plugin
  pluginConfiguration: {name: $PLUGIN_NAME}
Y
}
of_schedule() { k get backups -l "cnpg.io/scheduled-backup=$1${2:+,cnpg.io/immediateBackup=$2}" -o json | jq -r '.items[] | select(.status.phase=="completed") | .metadata.name'; }
has_some() { [ -n "$("$@")" ]; }
schedules() {
    for owner in none self cluster; do scheduled_backup "by-$owner" $owner; done
    for owner in none self cluster; do
        until_true 180 "the immediate backup of by-$owner" has_some of_schedule "by-$owner" true
        until_true 180 "a backup of by-$owner on its minute" has_some of_schedule "by-$owner" false
    done
    for owner in none self cluster; do k patch "scheduledbackup/by-$owner" --type merge -p '{"spec":{"suspend":true}}' >/dev/null; done
    until_true 180 'the last of the scheduled backups' all_backups_over
    note "$(k get backups -o name | wc -l) Backups"
}
all_backups_over() { [ -z "$(k get backups -o json | jq -r '.items[] | select(.status.phase != "completed" and .status.phase != "failed") | .metadata.name')" ]; }
schedule_owners() {
    local name kind
    for owner in none self cluster; do
        name=$(of_schedule "by-$owner" true | head -1)
        kind=$(k get "backup/$name" -o json | jq -r '.metadata.ownerReferences[0].kind // "nobody"')
        case $owner in none) equal "owner of $name" nobody "$kind" ;; self) equal "owner of $name" ScheduledBackup "$kind" ;; cluster) equal "owner of $name" Cluster "$kind" ;; esac
    done
    for owner in none self cluster; do k delete "scheduledbackup/by-$owner" >/dev/null; done
    until_true 60 "the end of by-self's backups" no_backups_of by-self
    has_some of_schedule by-none && has_some of_schedule by-cluster
}
no_backups_of() { [ -z "$(k get backups -l "cnpg.io/scheduled-backup=$1" -o name)" ]; }

window_in_status() { # filled after a backup, and what kubectl cnpg prints from it
    until_true 90 'the recovery window' window_is_there
    local shown
    shown=$(kubectl-cnpg status -n "$NS" origin 2>&1)
    for line in 'First Point of Recoverability' 'Last Successful Backup'; do
        grep "$line" <<<"$shown" | grep -qE '[0-9]{4}-[0-9]{2}-[0-9]{2}' || fail "kubectl cnpg status has no $line: $(grep "$line" <<<"$shown")"
    done
    grep -E 'Working WAL archiving' <<<"$shown" | grep -q OK || fail "$(grep -i 'wal archiving' <<<"$shown")"
    grep -q "$PLUGIN_NAME" <<<"$shown"
    note "$(grep -E 'Recoverability|Successful Backup|Working WAL' <<<"$shown" | tr -s ' \t' ' ' | paste -sd';')"
}
window_is_there() { k get objectstore/store -o json | jq -e '.status.serverRecoveryWindow.origin | .firstRecoverabilityPoint and .lastSuccessfulBackupTime' >/dev/null; }
metrics() {
    local text name
    text=$(k get --raw "/api/v1/namespaces/$NS/pods/$(primary origin):9187/proxy/metrics")
    for name in first_recoverability_point last_available_backup_timestamp last_failed_backup_timestamp; do
        grep -q "^barman_cloud_cloudnative_pg_io_$name " <<<"$text" || fail "no barman_cloud_cloudnative_pg_io_$name"
    done
    [ "$(awk '$1 == "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp" { print ($2 > 1.6e9) }' <<<"$text")" = 1 ]
    note "$(grep -cE '^cellarman_' <<<"$text" || true) metrics of our own"
}

delete_origin() {
    delete_cluster origin
    until_true 60 "the end of the Cluster's own backups" no_backups_of by-cluster
    has_some of_schedule by-none && field_is backup/first .status.phase completed
}

recovery() { # NAME TARGET: asked for, not waited for
    cluster "$1" 1 "$(comes_from store origin)" "$(recovers "$2")"
}
recover_all() {
    cluster to-end 1 "$(comes_from store origin)" "$(recovers '')" "$(archives_to store to-end)"
    recovery to-time "targetTime: \"$(recall time)\""
    recovery to-lsn "targetLSN: \"$(recall lsn)\""
    [ "${E2E_PARALLEL:-6}" = 6 ] || for name in to-end to-time to-lsn; do healthy $name 400; done
    recovery to-xid "targetXID: \"$(recall xid)\", backupID: $(recall first)"
    recovery to-name "targetName: hundred, backupID: $(recall first)"
    recovery to-consistency "targetImmediate: true, backupID: $(recall second)"
}
has_the_rows() { # CLUSTER LATE: 100 rows, and whether the later table may be there
    healthy "$1" 500
    equal "rows of $1" 100 "$(sql "$1" 'select count(*) from numbers')"
    equal "the later table in $1" "$2" "$(sql "$1" "select to_regclass('late') is not null")"
}

step 'install the plugin' prepare
step 'a cluster that archives (ContinuousArchiving is True)' create
step 'a Backup completes with all its status fields' first_backup
step '100 rows, a mark for each target, a second backup' rows_and_targets
step 'ScheduledBackups every minute, each kind of owner, at once and by the clock' schedules
step 'deleting them deletes the Backups of owner self alone' schedule_owners
step 'kubectl cnpg status shows the recovery window' window_in_status
step 'metrics on the exporter' metrics
step 'deleting the cluster leaves the Backups that it does not own' delete_origin
step 'six recoveries are asked for' recover_all
step 'recovery to the end: 100 rows' has_the_rows to-end t
step 'recovery to a time: 100 rows' has_the_rows to-time f
step 'recovery to an LSN: 100 rows' has_the_rows to-lsn f
step 'recovery to a transaction: 100 rows' has_the_rows to-xid f
step 'recovery to a named point: 100 rows' has_the_rows to-name f
step 'recovery to the end of a backup: 100 rows' has_the_rows to-consistency f
step 'the recovered cluster archives under a name of its own' archiving to-end
