"""Showing the last events of the audit."""
