# Things break while work is under way: nothing acknowledged is lost, nothing half-done is called completed, and the
# cause can be read.
# shellcheck shell=bash disable=SC2154

create() {
    object_store store 'instanceSidecarConfiguration: {retentionPolicyIntervalSeconds: 5}'
    cluster tried 1 "$(archives_to store)"
    healthy tried
    archiving tried
    sql tried 'create table numbers as select generate_series(1, 100) as n'
    # Enough bytes that do not compress for a backup and a restore to be caught under way.
    sql tried "create extension if not exists pgcrypto; create table load as select i, gen_random_bytes(1000) as bytes from generate_series(1, ${E2E_LOAD_ROWS:-150000}) i" 2>/dev/null ||
        sql tried "create table load as select i, (select string_agg(md5(random()::text || i), '') from generate_series(1, 30)) as bytes from generate_series(1, ${E2E_LOAD_ROWS:-150000}) i"
    archive_now tried 300
}

killed_in_archive() {
    switches tried 8
    for _ in 1 2 3; do
        kill_sidecar "$(primary tried)" || true
        sql tried 'create table if not exists fence (n int); insert into fence values (1); select pg_switch_wal()' >/dev/null
        until_true 60 'the sidecar' sidecar_runs "$(primary tried)"
    done
    archive_now tried 240
    archiving tried
    whole_archive tried
}
# Every segment from the first to the last is there, once, and decompresses to a whole segment.
whole_archive() { # SERVER
    local names
    names=$(s3_list "$RUN_ID/store/$1/wals/" | grep -E '/[0-9A-F]{24}(\.[a-z0-9]+)?$' | sed -E 's#.*/##; s#\..*##' | sort)
    equal 'segments kept twice' '' "$(uniq -d <<<"$names")"
    # What is archived ahead may be there before what comes before it, for a moment.
    until_true 60 'an archive without a hole' no_holes_below "$RUN_ID/store/$1"
    local key
    for key in $(s3_list "$RUN_ID/store/$1/wals/" | grep -E '/[0-9A-F]{24}\.gz$' | tail -12); do
        equal "size of $key" 16777216 "$(s3_get "$key" | gzip -dc | wc -c)"
    done
}

killed_in_backup() {
    backup cut tried
    until_true 60 'the begin of the backup' backup_has_begun
    kill_sidecar "$(primary tried)"
    until_true 120 'the end of the backup' backup_is_over cut
    field_is backup/cut .status.phase failed
    note "$(field backup/cut .status.error | head -c 200)"
    until_true 60 'the sidecar' sidecar_runs "$(primary tried)"
    # Whatever is in the bucket is not called done.
    local key
    for key in $(s3_list "$RUN_ID/store/tried/base/" | grep 'backup.info$' || true); do
        ! s3_get "$key" | grep -q '^status=DONE' || fail "$key is called done"
    done
# A server that waits for its checkpoint sees only after it that the client is gone.
    until_true 120 'the server to end the backup' no_backup_runs
}
no_backup_runs() { [ "$(sql tried "select count(*) from pg_stat_activity where query ~ 'pg_backup_start' and state = 'active' and pid <> pg_backend_pid()")" = 0 ]; }
backup_has_begun() { [ "$(sql tried "select count(*) from pg_stat_activity where query ~ 'pg_(backup_start|start_backup|backup_stop)' and pid <> pg_backend_pid()")" != 0 ] || [ -n "$(s3_list "$RUN_ID/store/tried/base/")" ]; }
backup_after_that() {
    backup whole tried
    backup_ends whole 300
    # Many segments, so that a recovery can be caught while it asks for them.
    switches tried "${E2E_REPLAYED:-100}"
    archive_now tried 600
}
switches() { # CLUSTER COUNT: so many segments with little in them
    sql "$1" "do \$\$ begin for i in 1..$2 loop perform pg_logical_emit_message(true, 'e2e', i::text); perform pg_switch_wal(); commit; end loop; end \$\$" >/dev/null
}

store_down_in_archive() {
    local pending
    store_down
    sql tried 'create table in_the_dark as select 1 as n; select pg_switch_wal()' >/dev/null
    until_true 120 'the condition to say so' condition cluster/tried ContinuousArchiving False
    note "$(field cluster/tried '.status.conditions[?(@.type=="ContinuousArchiving")].message' | head -c 250)"
    pause_until_down_for 60
    store_up
    until_true 240 'archiving to go on' condition cluster/tried ContinuousArchiving True
    archive_now tried
    whole_archive tried
}
# The outage itself is what is tried here, so its length is waited for.
pause_until_down_for() { sleep "$1"; }

store_down_in_recovery() {
    cluster patient 1 "$(comes_from store tried)" "$(recovers '')"
    # Once the base backup is in place the server asks for WAL.
    until_true 240 'the recovery job to replay' replaying
    store_down
    pause_until_down_for 60
    equal 'pods of the new cluster that are ready' '' "$(k get pods -l cnpg.io/cluster=patient,cnpg.io/podRole=instance -o name)"
    store_up
    healthy patient 500
    equal rows 100 "$(sql patient 'select count(*) from numbers')"
    equal 'the last table' t "$(sql patient "select to_regclass('in_the_dark') is not null")"
    note "the job's failed pods: $(field job/patient-1-full-recovery .status.failed 2>/dev/null || true)"
    delete_cluster patient
}
job_pod() { k get pods -l "cnpg.io/cluster=$1,cnpg.io/jobRole=full-recovery" -o json | jq -r '.items[-1].metadata.name // empty'; }
replaying() { k logs "$(job_pod patient)" -c full-recovery 2>/dev/null | grep -qE 'starting (archive|point-in-time) recovery|restored log file'; }

killed_in_restore() {
    cluster stubborn 1 "$(comes_from store tried)" "$(recovers '')"
    until_true 120 'the restore' restoring
    kill_sidecar "$(job_pod stubborn)"
    healthy stubborn 600
    equal rows 100 "$(sql stubborn 'select count(*) from numbers')"
    delete_cluster stubborn
}
restoring() { sidecar_runs "$(job_pod stubborn)"; }

step 'install the plugin' prepare
step 'a cluster with some load' create
step 'the sidecar killed during Archive: nothing is lost' killed_in_archive
step 'the sidecar killed during Backup: it is called failed' killed_in_backup
step 'the next backup completes' backup_after_that
step 'the store down for 60 s during archive' store_down_in_archive
step 'the store down for 60 s during recovery, which waits' store_down_in_recovery
step 'the sidecar killed during Restore: the recovery comes to its end' killed_in_restore
