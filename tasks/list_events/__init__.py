"""Showing the last lines of the audit.

steps        the Prefect task: asks each catalogue once, and publishes the lines
event_log    the query, the lines, and how they are shown
"""
