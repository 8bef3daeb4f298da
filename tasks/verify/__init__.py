"""Verifying a backup: it is restored into a scratch database of its own, compared, and the scratch is dropped.

steps           every step of the flow verify_backup but those that it shares with restore, and its lock
subject         which backup is verified, and its scratch database
fault           after an error: whether the backup is at fault, or what is around it
verdict         what was proved, and how the catalogue records it
verify_report   the result as markdown
"""
