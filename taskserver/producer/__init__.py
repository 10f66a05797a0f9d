"""Producer: runs a command as a task (``taskserver run``), or takes what a program logs (``TaskHandler``).

One path for every line: pump threads read the command's output, echo it and
write it as NDJSON into a spool file; one sender reads the spool at its cursor
and appends to the task. While the server is away only the distance between the
two grows. Memory is constant throughout.
"""

from taskserver.producer.handler import TaskHandler
from taskserver.producer.run import Options, run_task

__all__ = ["Options", "TaskHandler", "run_task"]
