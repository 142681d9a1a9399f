# A volume for the WAL and a tablespace: kept by a backup, put back by a recovery.
# shellcheck shell=bash disable=SC2154

volumes=('walStorage: {size: 1Gi}' 'tablespaces: [{name: fast, storage: {size: 1Gi}}]')

create() {
    object_store store
    cluster wide 1 "$(archives_to store)" "${volumes[@]}"
    healthy wide
    archiving wide
    until_true 60 'the tablespace' is fast sql wide "select spcname from pg_tablespace where spcname = 'fast'"
    sql wide 'create table numbers tablespace fast as select generate_series(1, 100) as n'
}
back_up() {
    backup one wide
    backup_ends one
    archive_now wide
    delete_cluster wide
}
recover() {
    cluster again 1 "$(comes_from store wide)" "$(recovers '')" "${volumes[@]}"
    healthy again 400
    equal rows 100 "$(sql again 'select count(*) from numbers')"
    equal tablespace fast "$(sql again "select spcname from pg_class c join pg_tablespace t on t.oid = c.reltablespace where relname = 'numbers'")"
    equal 'pg_wal' /var/lib/postgresql/wal/pg_wal "$(k exec again-1 -c postgres -- readlink /var/lib/postgresql/data/pgdata/pg_wal)"
    equal 'tablespace location' /var/lib/postgresql/tablespaces/fast/data "$(sql again "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'")"
}

step 'install the plugin' prepare
step 'a cluster with walStorage and a tablespace' create
step 'a backup, then the cluster is deleted' back_up
step 'recovery with both volumes: 100 rows where they were' recover
