"""Rebuilding the catalogue from the bucket alone."""
