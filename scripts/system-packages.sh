#!/usr/bin/env bash
# Install the system packages the tests need and this machine lacks; do nothing when nothing is missing.
set -euo pipefail

# command:Debian package. Everything else comes as wheels (TA-Lib and torch included).
needed=(git:git chromium:chromium gcc:build-essential)

missing=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "the tests need these packages, and there is no apt-get to install them: ${missing[*]}" >&2
    exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
echo "installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update --quiet
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
