"""The store for one machine: a SQLite file that one process writes."""
