"""Backups of many plans, a few at a time, each in a run of its own.

steps               the Prefect tasks: choose the plans, back them up, report with a table and lines of the audit
start_order         which backups start next, and which are given up
backups_under_way   starts runs and asks about them until all have ended
"""
