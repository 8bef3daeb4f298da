"""Restoring a backup. The flow `restore` calls the steps in this order; each line names the files that do the work.

    steps           every step of the flows restore and undo_restore; safeguards surrounds them: lock, spool, safety
                    backup, and what happens after an error; values passes from step to step
    validate        which backup, and everything that could stand in the way (preflight/)
    download        fetches the parts, each proved by its SHA-256, into the spool
                    where: the server that a run restores to; for verify-backup one may be of the worker's own
                    (throw_away), which a guard removes whatever becomes of the run
                    into: the backup of one plan, and the server of another
    psql            make_roles: the roles that it is to create
                    load: which database (scratch), and how: load_in_stages for a whole backup, which gives each of the
                    entries to stages; hands says which psql of the crew gets an entry, builds makes indexes and keys
                    by several at once, and loader_role makes the role that loads for a superuser; owners puts another
                    owner into the text
                    in_place, or chosen tables (tables/), by psql, in one transaction
                    stored parts → decode → dump_reader (dump_statements: what pg_dump writes) → psql_session
                    sql_errors: which error ended psql, and at which entry
    compare         counts the rows of every table, and compares with the manifest; content dumps the restored database
                    again, and compares every entry and every row
    swap            put_into_place: after_restore (session_roles makes its role), ANALYZE, apply_properties (owner,
                    grants, settings), then the swap
                    swap: both names changed in one transaction; swap_sessions ends the sessions in the way; carry
                    copies the catalogue when it lies in the database that is replaced
    record          restore_report: the result as markdown
                    last_restore: how long the last one took
    undo            put_into_place: the same swap, with the database that the restore replaced

databases creates and drops databases of restores, kept_databases lists the replaced ones; labels has their names, and
the labels that prove whose they are. sql/ has the statements for in_place and tables.
"""
