"""Everything that could stand in the way of a restore, looked for at once before anything is changed.

survey          asks all of the following, and raises one error with every problem
local           without the server: parameters, psql, keys of encrypted backups, disk
target_server   the server: version, connections, extensions, locale, tablespace
target_entries  entries of the backup that not every server takes
live            the database that is to be replaced
roles           roles that the backup needs, and what the role that restores may do
"""
