"""Alarms: problems and their ends, which runs report to the Prefect server, and automations send to people.

event_names         the names of runs and of our own events, and which event begins and ends which problem
run_reports         what a run reports: that it has begun, how it ended, what is wrong or well again; calls the
                    address in PING_URL, whose service notices when a backup is missing
watch               what the server knows of earlier runs; makes sure that a first problem is reported
automations         what the server does with the events, and the messages that it sends
apply_automations   keeps that so on the server, with the notification blocks of NOTIFY_URL
"""
