"""The figures, one file per kind. Each file has FIGURES; whatever lies here is part of the benchmark."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests.bench.figure import Figure


def all_figures() -> list[Figure]:
    """All figures, by the names of their files."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [figure for name in names for figure in import_module(f"{__name__}.{name}").FIGURES]
