"""Verifying a backup: it is restored into a scratch database and compared."""
