"""The command `backups`: everything that people do, from a terminal or a script.

`main` is the command, with its sub-commands; `records` reads catalogues and prints what they hold, `output` is the form
of that as JSON. `flow_commands` makes a command of each flow, without importing it; `runs` starts a deployment and
watches its run. `prefect_api` asks Prefect's API. None of these imports Prefect, which alone takes two seconds; only
`plan_commands`, `globals_command` and `--here` do.
"""
