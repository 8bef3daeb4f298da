"""Rebuilding the catalogue of a plan from its bucket.

steps          the Prefect task: compares, writes, and shows both
differences    compares every manifest in the bucket with its row, and decides what to write
write_rows     writes rows and audit in one transaction
"""
