"""A backup: preflight, dump, upload and record."""
