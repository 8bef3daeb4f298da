"""The health check: a line for each thing that a backup, a restore or an alarm needs.

steps            the Prefect task: a plan's lines in log, artifact, audit and event
examine          asks everything at the same time, with deadlines, and orders the lines
checks/          a file for each subject: what is asked, and what the answers mean
prefect_facts    reads from the Prefect server what `checks/prefect_server` judges
lines            a line, and the sentence for the lines that failed
"""
