"""Alarms: what runs report to the Prefect server, and the automations that report it to people."""
