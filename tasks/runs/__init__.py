"""What every run shares, beside the work of its steps.

command_line   starts a flow directly; arguments are its options
other_runs     whether a scheduled run is a duplicate, and whether backup-all has started it
retries        when a step is tried again; keeps restores out
at_once        runs two steps at the same time, or many small questions with a deadline
reporting      what people see of a run: log, progress, artifacts, the link to the admin page
markdown       the form of texts: tables, names as they are, sizes, times
audit          what the catalogue keeps of a run; does the work of a run for one plan or all
"""
