"""Stored backups: listing and finding them, proving them, and their replicas."""
