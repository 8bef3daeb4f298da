"""Backups in their buckets: finding, proving, copying and removing them.

find_backup    the backup that somebody asks for: latest, a file name or an id
backup_files   the files in a plan's folder; proves that they are what was sent and recorded; removes them
store_facts    what is known of the stores, and kept
replicas       copies in other buckets
"""
