"""Restoring chosen tables of a backup.

patterns            which tables are meant: names and patterns as in psql and pg_dump
entry_text          which table a statement of the dump is about
selection           reads the dump entry by entry, and decides what goes into psql
table_scripts       for the mode in_place: the chosen tables of the live database are replaced;
                    for the mode new_database: all definitions, the rows of the chosen tables, then the rest goes
"""
