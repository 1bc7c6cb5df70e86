#!/usr/bin/env bash
# Run the tests: with arguments those pytest is asked for, without any all of them, in two halves
# side by side. Tests that need Ray wait half of their time, the others never.
set -uo pipefail
cd "$(dirname "$0")/.."

pytest=(.venv/bin/python -m pytest)
[ "$#" -eq 0 ] || exec "${pytest[@]}" "$@"

log=$(mktemp)
"${pytest[@]}" -m "not ray" >"$log" 2>&1 &
others=$!
trap 'kill "$others" 2>/dev/null; rm -f "$log"' EXIT
"${pytest[@]}" -m ray
with_ray=$?
wait "$others"
without_ray=$?
cat "$log"
exit $((with_ray != 0 ? with_ray : without_ray))
