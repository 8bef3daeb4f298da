"""What the set-up makes on a Prefect server; each part yields a line for each thing that differed, as it changes it.

In the order of the work: `prefect_yaml` reads what is declared, `upgrade` brings over what an older version has made,
`blocks` makes the blocks of a plan, `deployments` the work pool and the deployments, `schedules` their schedules.
`merging` decides what follows its declaration and what stays as somebody has set it in Prefect, by what the set-up has
`remembered`.
"""
