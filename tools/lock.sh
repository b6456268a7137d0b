#!/bin/sh
# Write requirements.lock: requirements.in installed into an empty environment, every version pinned.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements.in
{
  echo "# Made by \`make lock\` from requirements.in. Install with plain pip: it finds the CPU build of torch where there is one."
  "$work/venv/bin/python" -m pip freeze --all --exclude-editable --exclude pip --exclude setuptools | sed 's/^\(torch==[0-9.]*\)+.*/\1/'
} > "$work/lock"
mv "$work/lock" requirements.lock
