#!/usr/bin/env bash
# Make .venv hold the lock and this project; does nothing when it already does.
set -euo pipefail
cd "$(dirname "$0")/.."

# A compiled kernel holds constants of other files, and is not compiled anew when they change.
kernels=.venv/.kernels
shape=$(cat alphapulse/data/*kernel*.py alphapulse/domain/inputs.py alphapulse/domain/market.py \
    alphapulse/features/{channels,laying,rows}.py | sha256sum)
forget_kernels() {
    if [ "$(cat "$kernels" 2>/dev/null)" != "$shape" ]; then
        find alphapulse -name '*.nb[ic]' -delete
        echo "$shape" >"$kernels"
    fi
}

stamp=.venv/.stamp
wanted=$(cat requirements/lock.txt pyproject.toml | sha256sum)
if [ -x .venv/bin/alphapulse ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    forget_kernels
    exit 0
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # also a half-made one
    python=$(scripts/python.sh)
    "$python" -m venv --clear .venv
fi
echo "installing the locked dependencies into .venv (minutes the first time) ..." >&2
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements/lock.txt
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable .
echo "$wanted" >"$stamp"
forget_kernels
