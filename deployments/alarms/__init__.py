"""Alarms as code: what the Prefect server tells by itself, in which words, and by which way."""
