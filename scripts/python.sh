#!/usr/bin/env bash
# Print the first interpreter that runs and is new enough; fail with one clear sentence otherwise.
set -euo pipefail

for candidate in python3.11 python3.12 python3.13 python3; do
    # A name on PATH is not enough: a version manager's shim may exist and not run.
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$candidate"
        exit 0
    fi
done
echo "AlphaPulse needs Python 3.11 or newer with the venv module; found none of python3.11, python3.12," \
    "python3.13, python3. Install one (Debian and Ubuntu: apt-get install python3 python3-venv)." >&2
exit 1
