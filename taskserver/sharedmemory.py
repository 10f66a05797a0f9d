"""Memory that several processes of a server see."""

from __future__ import annotations

import os
import tempfile


def shared_memory(name: str, size: int) -> int:
    """Zeroed memory of ``size`` bytes, as a file descriptor to map and to hand on; ``name`` is for people.

    It is gone when nobody has it open or mapped any more.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
