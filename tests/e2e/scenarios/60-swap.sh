# One cluster under plugin-barman-cloud, then under ours, then back: one rollout each, archiving never refused, the
# backups of both listed, restored by both, and no Backup object lost. Also the bucket of one recovered by the other.
# shellcheck shell=bash disable=SC2154

other=reference
ours=cellarman

under_reference() {
    install_plugin $other
    clear_namespace
    namespace "$NS"
    object_store store 'instanceSidecarConfiguration: {retentionPolicyIntervalSeconds: 5}' 'retentionPolicy: 30d'
    cluster moved 1 "$(archives_to store)"
    healthy moved
    archiving moved
    sql moved 'create table numbers as select generate_series(1, 100) as n'
    backup by-reference moved
    backup_ends by-reference
    archive_now moved
    remember generation "$(pod_uid)"
}
pod_uid() { field "pod/$(primary moved)" .metadata.uid; }
sidecar_of() { k get "pod/$(primary moved)" -o json | jq -r ".spec.initContainers[] | select(.name==\"$SIDECAR\") | .image"; }
# One rollout: the pod is made anew once, with the other sidecar, and then stays.
moved_to() { # PLUGIN MARK
    local before failures
    before=$(pod_uid)
    install_plugin "$1"
    until_true 180 "the rollout to $1" is "$(sidecar_image "$1")" sidecar_of
    healthy moved 300
    archiving moved
    sql moved "create table $2 ()"
    archive_now moved
    local after
    after=$(pod_uid)
    [ "$before" != "$after" ] || fail 'no rollout'
    # A second rollout would begin with the operator's next look at the pod, which a change of the Cluster brings about.
    k annotate cluster/moved "look-again=$2" --overwrite >/dev/null
    stays_for 20 "$after"
    failures=$(sql moved 'select failed_count from pg_stat_archiver')
    equal "failures of the archiver since the start, last $(sql moved "select coalesce(last_failed_wal, '')  from pg_stat_archiver")" 0 "$failures"
}
stays_for() { # SECONDS UID
    local deadline=$((SECONDS + $1))
    while [ $SECONDS -lt $deadline ]; do
        equal 'the pod' "$2" "$(pod_uid)" || return 1
        sleep 1
    done
}
back_up() {
    backup "$1" moved
    backup_ends "$1"
    archive_now moved
}
all_kept() { # BACKUP...: objects and data
    local name id
    for name in "$@"; do
        field_is "backup/$name" .status.phase completed
        id=$(field "backup/$name" .status.backupId)
        s3_get "$RUN_ID/store/moved/base/$id/backup.info" | grep -q '^status=DONE'
    done
}
window_knows() { # BACKUP that was last
    local stopped
    stopped=$(field "backup/$1" .status.stoppedAt)
    until_true 60 'the window' window_ends "$(date -u -d "$stopped" +%s)"
}
window_ends() {
    local last
    last=$(field objectstore/store .status.serverRecoveryWindow.moved.lastSuccessfulBackupTime)
    [ -n "$last" ] && [ $(($(date -u -d "$last" +%s) - $1)) -le 3 ] && [ $(($1 - $(date -u -d "$last" +%s))) -le 3 ] || fail "the last is $last"
}
recovers_from() { # CLUSTER BACKUP: the backup by its name, to its end
    cluster "$1" 1 "$(comes_from store moved)" "$(recovers "targetImmediate: true, backupID: $(field "backup/$2" .status.backupId)")"
    healthy "$1" 400
    equal "rows of $1" 100 "$(sql "$1" 'select count(*) from numbers')"
    delete_cluster "$1"
}
recovers_to_the_end() { # CLUSTER TABLE: the last mark is there
    cluster "$1" 1 "$(comes_from store moved)" "$(recovers '')"
    healthy "$1" 400
    equal "rows of $1" 100 "$(sql "$1" 'select count(*) from numbers')"
    equal "table $2 in $1" t "$(sql "$1" "select to_regclass('$2') is not null")"
    delete_cluster "$1"
}

step 'a cluster under plugin-barman-cloud, with a backup' under_reference
step 'to ours: one rollout, archiving never refused' moved_to $ours under_ours
step 'a backup by ours' back_up by-ours
step 'both backups are kept and listed' all_kept by-reference by-ours
step 'the window ends with our backup' window_knows by-ours
step 'ours recovers the backup of plugin-barman-cloud' recovers_from a by-reference
step 'ours recovers its own' recovers_from b by-ours
step 'ours recovers to the end' recovers_to_the_end c under_ours
step 'back to plugin-barman-cloud: one rollout, archiving never refused' moved_to $other back_again
step 'a backup by plugin-barman-cloud' back_up by-reference-again
step 'all backups are kept and listed' all_kept by-reference by-ours by-reference-again
step 'the window ends with its backup' window_knows by-reference-again
step 'plugin-barman-cloud recovers our backup' recovers_from d by-ours
step 'plugin-barman-cloud recovers to the end' recovers_to_the_end e back_again
