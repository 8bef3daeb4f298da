"""Downloading a backup by a link."""
