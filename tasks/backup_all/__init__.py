"""Backups of many plans, a few at a time, each in a run of its own.

`steps` has the Prefect tasks: choose the plans, back them up, report. `start_order` decides which backups start next
and which are given up, `backups_under_way` starts runs and asks about them until all have ended.
`summary` makes the table, the lines of the audit and the error.
"""
