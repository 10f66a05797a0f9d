# Sourced by the other scripts: a private environment beside the code.
#
#   use_env EXTRAS    makes .venv-VERSION (again, when setup.cfg has changed) and puts it on the PATH;
#                     EXTRAS are those of setup.cfg, and "run" for none
#
# PYTHON chooses the interpreter; each version has an environment of its own.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "$*" >&2; exit 1; }

use_env() {
    local extras=$1 python=${PYTHON:-python3} version stamp target
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "cannot run $python; set PYTHON"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is Python $version; 3.10 or newer is needed (set PYTHON)"
    export VIRTUAL_ENV=$PWD/.venv-$version
    export PATH=$VIRTUAL_ENV/bin:$PATH
    stamp=$VIRTUAL_ENV/installed-${extras//,/-}-$(cksum < setup.cfg | cut -d' ' -f1)
    [ -e "$stamp" ] && return
    echo "setting up ${VIRTUAL_ENV##*/} (once)" >&2
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv module; on Debian: apt-get install python3-venv"
    [ "$extras" = run ] && target=. || target=".[$extras]"
    [ -x "$VIRTUAL_ENV/bin/python" ] || "$python" -m venv "$VIRTUAL_ENV"
    "$VIRTUAL_ENV/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --editable "${target}" >&2
    touch "$stamp"
}
