#!/usr/bin/env bash
# Make .venv-bench hold the peers the benchmarks compare with; never part of `make run`.
set -euo pipefail
cd "$(dirname "$0")/.."

# fill VENV REQUIREMENTS: make the environment and install, unless that was done before.
fill() {
    local stamp=$1/.stamp wanted
    wanted=$(sha256sum <"$2")
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    if ! "$1/bin/python" -m pip --version >/dev/null 2>&1; then  # also a half-made one
        python=$(scripts/python.sh)
        "$python" -m venv "$1"
    fi
    echo "installing $2 into $1 (minutes the first time) ..." >&2
    "$1/bin/python" -m pip install --quiet --quiet --disable-pip-version-check -r "$2"
    echo "$wanted" >"$stamp"
}

fill .venv-bench requirements/bench.txt
fill .venv-bench/vectorbt requirements/bench-vectorbt.txt
