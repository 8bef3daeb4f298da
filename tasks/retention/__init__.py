"""Retention, clean-up and delete-backup: everything that removes backups, and what dead runs left.

steps      the Prefect tasks: retention after a backup, the clean-up of a plan, one backup deleted or kept; what they
           did, as markdown and as lines for the log
policy     which backups stay and which are due, and why: the rule alone
halt       why backups stay that are due: answers of the store that may be wrong, or more than usual
keep       keeps one backup for ever because a person asked for it, or lets it go
delete     deletes one backup because a person asked for it, unless it must stay
removal    removes one backup, in the one order in which that is safe, unless somebody reads it; ends removals that
           were killed; carries out what the policy decides for all backups of a plan
versions   what a bucket with versions keeps of backups that were removed
debris     databases that restores left, uploads that dead runs left open, and files that belong to no row
"""
