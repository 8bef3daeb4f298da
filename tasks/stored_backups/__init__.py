"""Backups in their buckets: finding, proving, copying and removing them.

find_backup   the backup that somebody asks for: latest, a file name or an id
proof         a bucket holds what was sent; a stored backup is the recorded one
listing       all backups in a plan's folder, each with what its manifest proves
replicas      copies in other buckets
remove        removes the files of one backup from one bucket
"""
