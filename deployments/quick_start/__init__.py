"""The services of the quick start, on loopback, under one folder: PostgreSQL, S3, Prefect and a worker.

Each can be started twice, stopped twice, and found again by another process. The tests use the same classes.
"""
