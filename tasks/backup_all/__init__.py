"""Backing up all plans, a few at a time, each in a run of its own."""
