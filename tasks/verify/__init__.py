"""Verifying a backup: it is restored into a scratch database of its own, compared, and the scratch is dropped.

steps           every step of the flow verify_backup but those that it shares with restore, and its lock
subject         which backup is verified, and its scratch database
place           on which server, and that it is there
checks          the checks of the plan: SQL that must be true of what was restored
verdict         what was proved, or whether the backup is at fault; how the catalogue records it
"""
