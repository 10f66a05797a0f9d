"""The imports of the package point one way (ARCHITECTURE.md, "Layers")."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import taskserver

ROOT = Path(taskserver.__file__).parent

# From the bottom up. A module may import from layers below its own, and within its own package.
LAYERS = [
    ["taskserver", "taskserver.errors", "taskserver.config"],
    ["taskserver.model", "taskserver.escapes", "taskserver.sharedmemory"],
    ["taskserver.meters", "taskserver.partial", "taskserver.jsontext"],
    ["taskserver.board"],
    ["taskserver.dagmodel"],
    ["taskserver.encoding", "taskserver.summaries"],
    ["taskserver.streams", "taskserver.searching"],
    ["taskserver.wakeup"],
    ["taskserver.store"],
    ["taskserver.keys", "taskserver.live", "taskserver.livepartials", "taskserver.retention"],
    ["taskserver.tokens", "taskserver.waiting"],
    ["taskserver.audience"],
    ["taskserver.tasks", "taskserver.runs", "taskserver.feed", "taskserver.upkeep"],
    ["taskserver.stores.taskrules", "taskserver.stores.rows", "taskserver.stores.chunks"],
    ["taskserver.stores.runrules"],
    ["taskserver.stores"],
    ["taskserver.keyfile"],
    ["taskserver.web.requests", "taskserver.web.exposition"],
    ["taskserver.web.streaming", "taskserver.web.failures", "taskserver.web.prepared"],
    ["taskserver.web.bounds", "taskserver.web.addresses"],
    ["taskserver.web.signins"],
    ["taskserver.web.context", "taskserver.web.files"],
    ["taskserver.web.rooms", "taskserver.web.bodies", "taskserver.web.seats"],
    ["taskserver.web.params"],
    ["taskserver.web.auth", "taskserver.web.validation"],
    ["taskserver.web.endpoint", "taskserver.web.cors", "taskserver.web.openapi_fields"],
    ["taskserver.web.openapi"],
    ["taskserver.api"],
    ["taskserver.web.app"],
    ["taskserver.serving"],
    ["taskserver.client"],
    ["taskserver.producer"],
    ["taskserver.worker"],
    ["taskserver.cli"],
    ["taskserver.__main__"],
]
CORE = [layer for layers in LAYERS[:13] for layer in layers]
DRIVERS = {"aiohttp", "aiosqlite", "sqlite3", "asyncpg", "webargs", "click", "rich", "prometheus_client"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("taskserver", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """The dotted names that a module imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def layer_of(name: str) -> int:
    """The layer of a module, by its own name or its nearest package."""
    while name:
        for number, layer in enumerate(LAYERS):
            if name in layer:
                return number
        name = name.rpartition(".")[0]
        if name in ("taskserver", "taskserver.web"):
            break
    raise AssertionError("a new module: say in LAYERS where it belongs")


def our_module(imported: str) -> str | None:
    """The module behind an imported name (which may be a name inside it), if it is ours."""
    known = modules()
    while imported.startswith("taskserver"):
        if imported in known:
            return imported
        imported = imported.rpartition(".")[0]
    return None


@pytest.mark.parametrize("name", list(modules()))
def test_imports_point_down(name: str) -> None:
    for imported in imports(modules()[name]):
        target = our_module(imported)
        if target is None or target == "taskserver" or same_package(name, target):
            continue
        assert layer_of(target) < layer_of(name), f"{name} imports {target}, which is not below it"


def same_package(name: str, target: str) -> bool:
    """Whether both belong to one entry of LAYERS that is a package."""
    return layer_of(name) == layer_of(target) and any(
        name.startswith(layer) and target.startswith(layer)
        for layer in (
            "taskserver.stores",
            "taskserver.serving",
            "taskserver.api",
            "taskserver.client",
            "taskserver.cli",
            "taskserver.producer",
            "taskserver.worker",
        )
    )


def test_rooms_reach_the_core_through_the_context_only_and_never_each_other() -> None:
    for name, path in modules().items():
        if not name.startswith("taskserver.api."):
            continue
        room = name.split(".")[2]
        for imported in imports(path):
            if imported.startswith("taskserver.api."):
                assert imported.split(".")[2] == room, f"{name} imports another room: {imported}"
            assert not imported.startswith("taskserver.stores"), f"{name} imports a store: {imported}"
            assert imported != "taskserver.tasks.Tasks", f"{name} must ask the context for Tasks"


@pytest.mark.parametrize("name", CORE)
def test_the_core_knows_no_web_framework_and_no_database_driver(name: str) -> None:
    used = {imported.partition(".")[0] for imported in imports(modules()[name])}
    assert not used & DRIVERS


def test_only_the_stores_package_names_a_backend() -> None:
    for name, path in modules().items():
        if name.startswith("taskserver.stores"):
            continue
        for imported in imports(path):
            assert not imported.startswith("taskserver.stores.") or imported.rpartition(".")[2] in (
                "open_store",
                "open_shared_store",
                "join_store",
                "local_name",
                "back_up",
                "backup_advice",
                "copy_database",
                "Size",
            ), f"{name} imports {imported}"


def test_only_the_wiring_imports_rooms() -> None:
    for name, path in modules().items():
        if name == "taskserver.web.app" or name.startswith("taskserver.api"):
            continue
        assert not any(imported.startswith("taskserver.api") for imported in imports(path)), name
