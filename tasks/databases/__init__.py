"""The databases of a server: which a plan means, which are gone, which no plan covers.

on_server   asks a server for its databases, and which of them are nobody's data
coverage    databases that no plan backs up
gone        databases that a plan backed up and that are not there any more
"""
