"""Alarms: what runs report to the Prefect server, and the automations that send it to people.

`event_names` has the names of runs and events, and which event ends which problem. `run_events` emits the events of a
run, `run_history` asks the server how earlier runs ended and since when something has been wrong, `watch` makes sure
that the first problem of a new plan or deployment is reported. `messages` has the texts, `channel` the notification
blocks of NOTIFY_URL, `automations` what the server does with the events, and `apply_automations` keeps that so on the
server. `ping` calls the address in PING_URL.
"""
