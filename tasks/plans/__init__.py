"""Plans: which database is backed up, where to, when, and how long its backups are kept.

In the order of the work: `settings` reads `.env`, whose misspelt names `setting_names` finds; `from_settings` makes the
blocks of a plan of it; `blocks` holds these types, the forms in the Prefect UI, and makes a plan of a block;
`find_plan` finds plans on the Prefect server. `plan` is a plan as a run uses it, with its `retention_rules`.
`schedules` reads when a plan is backed up, `masked_secrets` finds secrets that a form has lost, and `refusals` says in
a sentence why a Prefect server refuses something.
"""
