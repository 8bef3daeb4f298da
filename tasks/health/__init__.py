"""The health check: a line for each thing that a backup, a restore or an alarm needs.

steps            the Prefect task: a plan's lines in log, artifact, audit and event
examine          asks everything at the same time, with deadlines, and orders the lines
metrics          the figures of a plan as a file for Prometheus
lines            a line, and the sentence for the lines that failed

What is asked, and what the answers mean; the functions that make lines are pure:

backups          the catalogue, and the backups that it knows
bucket           a bucket, tried with a probe
database         the plan's server, and what restores have left on it
machine          client programs, free space, clocks
prefect_server   schedule, worker, alarms; prefect_facts asks the server for them
"""
