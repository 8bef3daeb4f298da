"""What every run shares: retries, reporting, the audit, the command line."""
