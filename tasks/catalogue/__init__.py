"""The catalogue: which backups there are, and what was done with them.

schema.sql    the tables: `docs/catalogue.sql` is this file
own_tables    the session: finds the tables, and refuses those in which code of others would run
schema        makes them, checks them, makes them again when they are lost
rows          a row of `database_backups` and what a manifest knows of it; a line of the audit `backup_events`
catalogue     the connection, and the life of a backup: open, complete or fail, remove
"""
