"""Loading the modules and files in which dags are declared."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from taskserver.worker import building
from taskserver.worker.dag import Dag
from taskserver.worker.errors import DagError


def load_dags(sources: Sequence[str]) -> dict[str, Dag]:
    """The dags of modules (``package.module``) and files (``folder/file.py``) by their names.

    Modules are found in the current folder too.
    Raises DagError for what cannot be loaded, two dags of one name, and a source without a dag.
    """
    dags: dict[str, Dag] = {}
    for source in sources:
        found = _load(source)
        if not found:
            raise DagError(f"{source} declares no dag: there must be a function with @dag")
        for dag in found:
            other = dags.get(dag.dag_id)
            if other is not None and other is not dag:
                raise DagError(f"two dags are called {dag.dag_id!r}: {other.where} and {dag.where}")
            dags[dag.dag_id] = dag
    return dags


def module_name(source: str) -> str:
    """The name under which a source is imported."""
    return Path(source).stem if is_file(source) else source


def is_file(source: str) -> bool:
    """Whether a source is a file, and not a module's name."""
    return source.endswith(".py") or "/" in source


def _load(source: str) -> list[Dag]:
    declared: list[Dag] = []
    token = building.DECLARED.set(declared)
    try:
        module = _import_file(source) if is_file(source) else _import_module(source)
    except DagError:
        raise
    except SyntaxError as error:
        raise DagError(f"{error.filename}:{error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
    except BaseException as error:  # also SystemExit: a script without an `if __name__ == "__main__"`
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename}:{where.lineno}"
        raise DagError(f"{source} cannot be loaded: {type(error).__name__}: {error} ({place})") from error
    finally:
        building.DECLARED.reset(token)
    # One that was imported before declares nothing anew.
    here = [value for value in vars(module).values() if isinstance(value, Dag)]
    return list({id(dag): dag for dag in [*declared, *here]}.values())


def _import_module(source: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:  # with `python -m` it is there, with an installed command it is not
        sys.path.insert(0, here)
    return importlib.import_module(source)


def _import_file(source: str) -> ModuleType:
    path, name = Path(source).resolve(), module_name(source)
    if not path.is_file():
        raise DagError(f"there is no file {source}")
    if (known := sys.modules.get(name)) is not None:
        if getattr(known, "__file__", None) == str(path):
            return known
        raise DagError(f"{source} would be imported as {name}, but that is {getattr(known, '__file__', 'built in')}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DagError(f"{source} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # so that it finds its neighbours, as a script would
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
