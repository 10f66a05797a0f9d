"""The benchmark: the server beside yardsticks that do only the bare work, on the same machine in the same run.

`python -m tests.bench` runs it. A figure is a class in a file of `figures/`; adding a file there adds it to the run.
"""
