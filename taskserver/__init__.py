"""taskserver: keeps the output, state and result of long-running tasks, and tells everyone who waits."""

__version__ = "0.1.0"
