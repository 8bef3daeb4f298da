"""The admin page: one artifact that shows all backups, with links to what can be done with them.

steps           the Prefect tasks; every flow writes the page at its end
prefect_data    Prefect's API: plans, deployments, next runs, and the artifact, which keeps its address
gather          asks all catalogues and servers at the same time; what does not answer is a sentence on the page
notes           what is kept with the page for the next one
view            the values and the links that the page shows
page            the page as markdown, with its tables; picture draws size and duration
"""
