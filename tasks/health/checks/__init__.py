"""What is checked: a file for each subject. Those that say so are pure; the others ask a server and change nothing.

database, catalogue_rows, bucket, backups    the plan's servers, and what they hold
prefect_server                               schedule, worker, alarms
client_tools, machine, replaced_databases    this machine, and what restores have left
"""
