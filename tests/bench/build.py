"""A build whose output is like other builds', and which needs nothing but what the tests need.

`python -m tests.bench.build FOLDER` compiles the installed packages to
bytecode in FOLDER (nothing else is written to), imports some of them with the
import system's trace on, and runs fast tests of this project, verbosely.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

IMPORTED = "airflow_client.client, schemathesis, posit.connect, rsconnect.main, hypothesis, httpx, requests, aiohttp"
TESTS = ("tests/unit/test_encoding.py", "tests/unit/test_dagmodel.py", "tests/contract")


def main(folder: Path) -> None:
    """Run the steps, whatever their exit codes: their output is what is wanted."""
    packages = sysconfig.get_paths()["purelib"]
    steps = [
        ("-m", "compileall", "-f", "-j", "2", packages),
        ("-v", "-c", f"import {IMPORTED}"),
        ("-m", "pytest", "-v", "-p", "no:cacheprovider", *TESTS),
    ]
    for step in steps:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder), "PYTHONUNBUFFERED": "1"}
        subprocess.run([sys.executable, *step], env=environment, stderr=subprocess.STDOUT, check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
