"""Rebuilding the catalogue of a plan from its bucket.

steps      the Prefect task: compares, writes, and shows both
rebuild    compares every manifest in the bucket with its row, decides what to write, and writes it
"""
