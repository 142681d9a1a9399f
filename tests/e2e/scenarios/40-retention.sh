# Retention: backups that end before the window go, with their WAL; their Backup objects follow; the others stay.
# Time is not waited for: the first two backups are made older by their backup.info.
# shellcheck shell=bash disable=SC2154

create() {
    object_store store 'retentionPolicy: 30d' 'instanceSidecarConfiguration: {retentionPolicyIntervalSeconds: 5}'
    cluster kept 1 "$(archives_to store)"
    healthy kept
    archiving kept
    for name in one two three; do
        sql kept "create table $name ()"
        archive_now kept
        backup $name kept
        backup_ends $name
        remember $name "$(field backup/$name .status.backupId)"
    done
    archive_now kept
}
age() { # BACKUP DAYS: its begin and end so much earlier
    local key=$RUN_ID/store/kept/base/$(recall "$1")/backup.info when
    when=$(date -u -d "$2 days ago" '+%F %T+00:00')
    s3_get "$key" | sed -E "s/^(begin_time|end_time)=.*/\1=$when/" | s3_put "$key"
}
narrow() {
    remember begin "$(field backup/two .status.beginWal)"
    age one 5
    age two 3
    k patch objectstore/store --type merge -p '{"spec":{"retentionPolicy":"1d"}}' >/dev/null
    until_true 400 'the end of backup one' no_backup_in_store one
}
no_backup_in_store() { [ -z "$(s3_list "$RUN_ID/store/kept/base/$(recall "$1")/")" ]; }
objects_follow() {
    until_true 60 "the end of one's Backup object" gone backup/one
    field_is backup/two .status.phase completed
    field_is backup/three .status.phase completed
    s3_get "$RUN_ID/store/kept/base/$(recall two)/backup.info" >/dev/null
    s3_get "$RUN_ID/store/kept/base/$(recall three)/backup.info" >/dev/null
}
older_wal_goes() {
    local oldest
    until_true 60 'the older WAL to go' no_wal_before "$(recall begin)"
    oldest=$(s3_list "$RUN_ID/store/kept/wals/" | grep -oE '[0-9A-F]{24}' | sort | head -1)
    equal 'the oldest segment' "$(recall begin)" "$oldest"
}
no_wal_before() {
    local oldest
    oldest=$(s3_list "$RUN_ID/store/kept/wals/" | grep -oE '/[0-9A-F]{24}' | tr -d / | sort | head -1)
    [ ! "$oldest" \< "$1" ] || fail "$oldest is there, which is before $1"
}
window_moves() {
    local expected
    expected=$(date -u -d '3 days ago' +%F)
    until_true 60 'the window' window_begins "$expected"
}
window_begins() { [ "$(k get objectstore/store -o json | jq -r '.status.serverRecoveryWindow.kept.firstRecoverabilityPoint[:10]')" = "$1" ]; }

step 'install the plugin' prepare
step 'three backups' create
step 'a window of one day: the backup that it does not need goes' narrow
step 'its Backup object follows, the others stay' objects_follow
step 'WAL before the oldest backup goes' older_wal_goes
step 'the recovery window begins at the oldest backup' window_moves
