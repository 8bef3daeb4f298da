"""Download: a link to a stored backup, and the commands that check and restore the file.

steps    the Prefect task: publishes link and commands, and writes the audit
offer    the link and how long it is valid; the commands
"""
