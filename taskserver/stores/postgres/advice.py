"""How to back up a PostgreSQL database, for its operator. Needs no driver."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

# Of a URL's query: what libpq's own programs understand (PostgreSQL's manual, 34.1.2), passwords left out.
_LIBPQ = frozenset(
    (
        "host", "hostaddr", "port", "dbname", "user", "passfile", "service", "sslmode", "sslnegotiation", "sslcert",
        "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "gssencmode", "krbsrvname", "gsslib", "channel_binding",
        "require_auth", "target_session_attrs", "connect_timeout",
    )
)  # fmt: skip


def backup_advice(url: str, target: Path) -> str:
    """What to do instead, with the commands for this database; without its password."""
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query))
    user, _, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    netloc = f"{user}@{host}" if user else host
    query = urlencode({name: value for name, value in settings.items() if name in _LIBPQ})
    public = f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"
    schema = settings.get("search_path", "").partition(",")[0].strip()
    dump = shlex.join(["pg_dump", "-Fc", "-d", public, *(("-n", schema) if schema else ()), "-f", str(target)])
    base = shlex.join(["pg_basebackup", "-d", public, "-D", f"{target}.base", "-Ft", "-X", "stream"])
    return (
        f"PostgreSQL makes its own backups, while servers run: {dump}, to be restored with pg_restore; or of the whole"
        f" cluster: {base} (the password from PGPASSWORD or ~/.pgpass)"
    )
