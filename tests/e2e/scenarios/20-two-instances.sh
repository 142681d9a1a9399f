# Two instances: a switchover while rows are written, a backup from the standby, a replica cluster fed from the bucket.
# shellcheck shell=bash disable=SC2154

create() {
    object_store store
    ARCHIVE_TIMEOUT=30s cluster pair 2 "$(archives_to store)"
    healthy pair 400
    archiving pair
    sql pair 'create table ticks (n serial, at timestamptz default clock_timestamp())'
    archive_now pair
}
# Rows until told to stop, over the cluster's service, as an application would.
writer() {
    while [ ! -e "$STATE/stop-writing" ]; do
        sql pair "insert into ticks select from generate_series(1, 50); select pg_switch_wal(), pg_sleep(0.7)" >/dev/null 2>&1 || sleep 0.2
    done
}
backup_from_standby() {
    # Its last segment is archived by the primary, which ends it when rows are written: a backup that waits for its
    # WAL, as ours does, needs them. The reference does not wait.
    rm -f "$STATE/stop-writing"
    writer &
    local writing=$!
    backup from-standby pair prefer-standby
    backup_ends from-standby || return 1
    touch "$STATE/stop-writing"
    wait $writing
    local pod
    pod=$(field backup/from-standby .status.instanceID.podName)
    [ "$pod" != "$(primary pair)" ] || fail "the backup ran on the primary $pod"
    note "on $pod, the primary is $(primary pair)"
}
switchover() {
    local before after
    before=$(primary pair)
    after=$([ "$before" = pair-1 ] && echo pair-2 || echo pair-1)
    rm -f "$STATE/stop-writing"
    writer &
    local writing=$!
    kubectl-cnpg promote -n "$NS" pair "$after" >/dev/null
    until_true 120 "the promotion of $after" field_is cluster/pair .status.currentPrimary "$after"
    healthy pair 300
    touch "$STATE/stop-writing"
    wait $writing
    archiving pair
    archive_now pair
    remember rows "$(sql pair 'select count(*) from ticks')"
    note "from $before to $after, $(recall rows) rows, timeline $(field cluster/pair .status.timelineID)"
}
no_holes() {
    no_holes_below "$RUN_ID/store/pair"
    s3_list "$RUN_ID/store/pair/wals/" | grep -q '00000002.history'
}
replica() {
    cluster follower 1 "$(comes_from store pair)" "$(recovers '')" 'replica: {enabled: true, source: origin}'
    healthy follower 400
    sql pair "create table told as select 7 as n"
    archive_now pair
    until_true 120 'the row in the replica cluster' follows 7
    equal 'rows in the replica cluster' "$(recall rows)" "$(sql follower 'select count(*) from ticks')"
    equal 'the replica cluster is in recovery' t "$(sql follower 'select pg_is_in_recovery()')"
}
follows() { equal told "$1" "$(sql follower 'select max(n) from told')"; }
follower_goes_on() {
    sql pair "insert into told values (8)"
    archive_now pair
    until_true 120 'the next row in the replica cluster' follows 8
}
promoted() {
    k patch cluster/follower --type merge -p '{"spec":{"replica":{"enabled":false,"source":"origin"}}}' >/dev/null
    until_true 180 'the promotion of the replica cluster' is f sql follower 'select pg_is_in_recovery()'
    # The operator restarts it on the way.
    until_true 120 'a row of its own' sql follower 'insert into told values (9)'
    healthy follower
}

step 'install the plugin' prepare
step 'two instances, archiving' create
step 'a backup from the standby' backup_from_standby
step 'a switchover while rows are written; archiving goes on' switchover
step 'the archive has no hole' no_holes
step 'a replica cluster is fed from the bucket alone' replica
step 'and goes on following' follower_goes_on
step 'and can be promoted' promoted
