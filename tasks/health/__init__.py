"""The health check: one line for each thing that a backup, a restore or an alarm needs.

`examination.examine` asks everybody at once, each with a deadline; the other modules hold what is asked and, as pure
functions, what the answers mean.
"""
