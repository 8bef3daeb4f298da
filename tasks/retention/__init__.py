"""Retention: which backups stay, and the removal of those that do not."""
