"""What the set-up declares, a module a kind of thing: blocks, the work pool, deployments and their schedules.

Each has a function that makes the server agree, and returns a line for each thing that differed; with `check=True` it
changes nothing. What somebody has set in Prefect stays as it is, which is said: see `merging`.
"""
