"""The catalogue: its tables, its rows and its events."""
