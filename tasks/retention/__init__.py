"""Retention, clean-up and delete-backup: everything that removes backups, and what dead runs left.

steps      the Prefect tasks: retention after a backup, the clean-up of a plan, the deletion of one backup
policy     which backups stay and which are due, and why: the rule alone
retain     carries out what the policy decides, for all backups of a plan
delete     deletes one backup because a person asked for it, unless it must stay
in_use     who reads a backup now, so that it is not removed
removal    removes one backup, in the one order in which that is safe; ends removals that were killed
debris     databases that restores left, and uploads that dead runs left open
orphans    files in the bucket that belong to no row of the catalogue
retention_report  what was done, as markdown and as lines for the log
"""
