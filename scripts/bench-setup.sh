#!/usr/bin/env bash
# Make .venv-bench hold the peers the benchmarks compare with; never part of `make run`.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-bench/.stamp
wanted=$(cat requirements/bench.txt scripts/bench-setup.sh | sha256sum)
if [ -x .venv-bench/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if ! .venv-bench/bin/python -m pip --version >/dev/null 2>&1; then  # also a half-made one
    python=$(scripts/python.sh)
    "$python" -m venv --clear .venv-bench
fi
.venv-bench/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements/bench.txt
# It asks for numpy < 2.3, which vectorbt excludes; it runs on the newer one.
.venv-bench/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps hftbacktest==2.4.4
echo "$wanted" >"$stamp"
