"""What every run shares, beside the work of its steps.

`command_line` starts a flow directly, with `arguments` as its options. `other_runs` decides whether a scheduled run is
a duplicate, and whether backup-all has started it.
`retries` says when a step is tried again, and keeps restores out. `at_once` runs two steps at the same time, or many
small questions with a deadline. `reporting` is what people see of a run (log, progress, artifacts, the link to the
admin page), `markdown` the form of it, and `audit` what the catalogue keeps, also of the
work for every plan.
"""
