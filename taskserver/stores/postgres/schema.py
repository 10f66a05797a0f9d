"""The schema: made and migrated by whichever node comes first."""

from __future__ import annotations

import asyncio

import asyncpg

from taskserver.errors import StoreOpenError
from taskserver.stores.migrations import migrations
from taskserver.stores.postgres.connect import BEGIN, Address, Connection
from taskserver.stores.postgres.failures import describe

APPLICATION = "taskserver"  # tells our schema_version from other programs'
MIGRATION_LOCK = 0x7461736B  # "task" in ASCII; for pg_advisory_xact_lock


async def migrate(address: Address) -> str:
    """Bring the schema up to date in one transaction, or leave it as it was; return its number in the database.

    Nodes that start at once do so one after the other. Raises StoreOpenError.
    """
    try:
        connection = await address.connect()
    except (OSError, ValueError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreOpenError(f"cannot open database {address.public}: {describe(error)}") from error
    try:
        await connection.execute(BEGIN)
        namespace = await _migrate(connection, address)
        await connection.execute("COMMIT")
        return namespace
    except (OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreOpenError(f"cannot open database {address.public}: {describe(error)}") from error
    finally:
        await connection.close()


async def _migrate(connection: Connection, address: Address) -> str:
    steps = migrations("postgres")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise StoreOpenError(f"cannot open database {address.public}: it is a read-only standby")
    version = await _version(connection, address)
    if version > len(steps):
        raise StoreOpenError(
            f"cannot open database {address.public}: its schema is version {version} and this taskserver knows only"
            f" up to {len(steps)}; use a newer taskserver"
        )
    for step in steps[version:]:
        await connection.execute(step.sql)
        await connection.execute("UPDATE schema_version SET version = $1", step.version)
    return str(await connection.fetchval("SELECT to_regclass('schema_version')::oid"))


async def _version(connection: Connection, address: Address) -> int:
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        await connection.execute("CREATE TABLE schema_version (application text NOT NULL, version integer NOT NULL)")
        await connection.execute("INSERT INTO schema_version VALUES ($1, 0)", APPLICATION)
        return 0
    try:
        version = await connection.fetchval("SELECT version FROM schema_version WHERE application = $1", APPLICATION)
    except asyncpg.UndefinedColumnError:
        version = None
    if version is None:
        raise StoreOpenError(f"cannot open database {address.public}: its schema was not made by taskserver")
    return int(version)
