"""PostgreSQL: addresses, sessions, locks, client programs and child processes."""
