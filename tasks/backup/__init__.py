"""A backup, in the order of the work.

`steps` has the steps: open, dump beside upload, record, replicate. To open a backup, `preflight` looks for what stands
in the way, `left_out` finds what the plan leaves out, `dead_runs` clears what dead runs left, and `open_backup` writes
the row. `dump` runs pg_dump into part files while `scanner` reads its text by the patterns in `dump_syntax`; the rows
of `large_tables` come from the sessions of `row_readers`, and `same_tables` looks whether tables changed before they
were locked. `source` asks the database (`source_roles.sql`) for what the
manifest says about it, `read_globals` for what belongs to its server, and `hindrances` (`source_superuser.sql`,
`source_hindrances.sql`, `source_functions.sql`, `source_left_out.sql`) for what will not load everywhere; `dump_errors`
says what a failed pg_dump means. `upload` sends the parts. `record_backup` writes the manifest and then the row, and
says whether the backup is suspicious.
"""
