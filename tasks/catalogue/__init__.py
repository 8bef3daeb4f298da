"""The catalogue: which backups there are, and what was done with them.

schema.sql    the tables: `docs/catalogue.sql` is this file
schema        makes them, checks them, makes them again when they are lost
backup_record  one row of `database_backups`, what its metadata says, and in which bucket the backup lies
manifest_row  the columns of a row that a manifest knows
events        one line of the audit `backup_events`
catalogue     the connection, and the life of a backup: open, complete or fail, remove
"""
