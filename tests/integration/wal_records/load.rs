//! What makes a log awkward: run as SQL, each time on what the time before left.

use testbed::sql::Sql;

/// Emits messages whose records end at given distances before a page's end.
const EDGES: &str = "
CREATE OR REPLACE FUNCTION wal_position() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint $$;
CREATE OR REPLACE PROCEDURE edges() LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    missing int;
    extra int;
BEGIN
    -- What a message of 1000 bytes takes beyond them, when no page ends in it.
    LOOP
        before := wal_position();
        PERFORM pg_logical_emit_message(false, 'edge', repeat('m', 1000));
        extra := wal_position() - before - 1000;
        EXIT WHEN before / 8192 = wal_position() / 8192;
    END LOOP;
    FOR distance IN 0..15 LOOP
        LOOP
            missing := 8192 - wal_position() % 8192 - 8 * distance;
            EXIT WHEN missing > 1000;
            PERFORM pg_logical_emit_message(false, 'edge', repeat('f', 1000));
        END LOOP;
        PERFORM pg_logical_emit_message(false, 'edge', repeat('e', missing - extra));
        PERFORM pg_logical_emit_message(false, 'edge', repeat('n', 300));
    END LOOP;
END $$;
CALL edges();
";

/// Fills up to the end of a segment, leaving less than a record, and then writes over it.
const CROSS: &str = "
CREATE OR REPLACE PROCEDURE cross_a_segment() LANGUAGE plpgsql AS $$
DECLARE
    bytes bigint := pg_size_bytes(current_setting('wal_segment_size'));
    missing bigint;
BEGIN
    LOOP
        missing := bytes - wal_position() % bytes;
        EXIT WHEN missing < 6000;
        PERFORM pg_logical_emit_message(false, 'fill', repeat('f', least(missing - 5500, 500000)::int));
    END LOOP;
    PERFORM pg_logical_emit_message(true, 'cross', repeat('c', 20000));
END $$;
CALL cross_a_segment();
";

const SUBTRANSACTIONS: &str = "
DO $$ BEGIN
    FOR n IN 1..3000 LOOP
        BEGIN
            INSERT INTO t VALUES (n, repeat('s', 20));
            IF n % 7 = 0 THEN
                RAISE EXCEPTION 'rolled back';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
";

const ORIGIN: &str = "
SELECT pg_replication_origin_create('elsewhere') WHERE NOT EXISTS (SELECT FROM pg_replication_origin);
SELECT pg_replication_origin_session_setup('elsewhere');
";

/// Runs each statement by itself, as its own transaction unless it says otherwise.
fn run_all(sql: &Sql, statements: &[&str]) {
    for statement in statements {
        sql.run(statement);
    }
}

/// One round of everything.
pub(super) fn mix(sql: &Sql) {
    sql.run("CREATE TABLE IF NOT EXISTS t (id int, v text)");
    sql.run("CREATE INDEX IF NOT EXISTS t_id ON t (id)");
    sql.run(EDGES);
    sql.run(
        "SELECT pg_logical_emit_message(n % 2 = 0, 'size', repeat('x', n)) \
         FROM generate_series(0, 9000, 40) n",
    );
    sql.run(SUBTRANSACTIONS);
    two_phase(sql);
    images(sql);
    run_all(
        sql,
        &[
            "BEGIN; INSERT INTO t VALUES (0, 'rolled back'); ROLLBACK",
            "SELECT pg_create_restore_point('it''s a \"point\"; $1 %s \\')",
            "SELECT pg_create_restore_point('Łódź, снег ☃')",
            "SELECT pg_create_restore_point(repeat('x', 63))",
            "SELECT pg_create_restore_point(E'two\\nlines')",
            "SELECT pg_switch_wal()",
            "SELECT pg_logical_emit_message(false, 'alone', 'in its segment')",
            "SELECT pg_switch_wal()",
            ORIGIN,
            "BEGIN; SELECT pg_replication_origin_xact_setup('12/345678', now()); \
             INSERT INTO t VALUES (1, 'replicated'); SAVEPOINT a; INSERT INTO t VALUES (2, 'too'); COMMIT",
            "SELECT pg_replication_origin_session_reset()",
            "CREATE TABLE dropped AS SELECT * FROM t",
            "BEGIN; DROP TABLE dropped; CREATE TABLE never (id int); COMMIT; DROP TABLE never",
            "TRUNCATE t",
        ],
    );
}

fn two_phase(sql: &Sql) {
    let (gid, long) = ("it''s \"prepared\" Ł", "g".repeat(199));
    sql.run("CREATE TABLE IF NOT EXISTS kept (id int)");
    sql.run("CREATE TABLE goes (id int)");
    sql.run(&format!(
        "BEGIN; INSERT INTO t VALUES (3, 'prepared'); SAVEPOINT a; INSERT INTO t VALUES (4, 'b'); \
         DROP TABLE goes; PREPARE TRANSACTION '{gid}'"
    ));
    sql.run(&format!(
        "BEGIN; CREATE TABLE never (id int); PREPARE TRANSACTION '{long}'"
    ));
    sql.run("INSERT INTO kept VALUES (1)");
    sql.run(&format!("COMMIT PREPARED '{gid}'"));
    sql.run(&format!("ROLLBACK PREPARED '{long}'"));
}

/// What `wal_compression` can be set to, apart by spaces.
pub(super) fn compressions(sql: &Sql) -> String {
    sql.value(
        "SELECT coalesce(array_to_string(enumvals, ' '), 'off on') \
         FROM pg_settings WHERE name = 'wal_compression'",
    )
}

/// Images of pages with each kind of compression that the server knows, and some to be compared.
fn images(sql: &Sql) {
    let kinds = compressions(sql);
    sql.run("INSERT INTO t SELECT n, md5(n::text) || repeat('z', n % 90) FROM generate_series(1, 4000) n");
    for kind in kinds.split(' ') {
        sql.run(&format!("SET wal_compression = '{kind}'"));
        sql.run("CHECKPOINT");
        sql.run("UPDATE t SET v = v || '.' WHERE id % 9 = 0");
        sql.run("SET wal_consistency_checking = 'heap,btree'");
        sql.run("UPDATE t SET v = v || '!' WHERE id % 97 = 0");
        sql.run("RESET wal_consistency_checking");
    }
    sql.run("RESET wal_compression");
    sql.run("VACUUM t");
}

/// Writes a record over the end of a segment; the name of the segment that it ends in.
pub(super) fn cross_a_segment(sql: &Sql) -> String {
    sql.run(CROSS);
    sql.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
}

/// Makes a checkpoint; what the control file then says of it.
pub(super) fn checkpoint(sql: &Sql) -> String {
    sql.run("CHECKPOINT");
    sql.value(
        "SELECT redo_lsn || ' ' || timeline_id || ' ' || prev_timeline_id || ' ' || next_xid || ' ' \
         || oldest_xid || ' ' || extract(epoch FROM checkpoint_time)::bigint FROM pg_control_checkpoint()",
    )
}
