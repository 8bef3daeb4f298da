"""The admin page: what is read for it, and the page as markdown. It never fails over one catalogue or one server.

addresses of the plans → gathering (reading, kept databases) → PlanView → page
"""
