"""Plans: which database is backed up, where to, when, and how long its backups are kept.

In the order of the work: `settings` reads `.env`, and finds misspelt names in it; `blocks` holds the blocks of a plan,
the forms in the Prefect UI, and makes a plan of them; `from_settings` makes blocks and plan of the settings;
`find_plan` finds plans on the Prefect server, and secrets that a form has lost. `addresses` reads where
their databases and catalogues are, without Prefect. `plan` is a plan as a run uses it, with
its rules of retention; `database_patterns` says which databases of a server it means. `schedules` reads when a plan is
backed up.
"""
