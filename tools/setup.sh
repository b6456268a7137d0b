#!/bin/sh
# Make .venv hold exactly requirements.lock and this package. Does nothing, in a few milliseconds, when it already does.
set -eu
cd "$(dirname "$0")/.."

[ -L .venv ] && exit 0 # a link: the environment belongs to another checkout

digest() { cat "$@" | git hash-object --stdin; }
lock=$(digest requirements.lock)
project=$(digest pyproject.toml tools/environment.pth tools/plots_page.py)
[ "$(cat .venv/.lock 2>/dev/null || true)" = "$lock" ] && [ "$(cat .venv/.project 2>/dev/null || true)" = "$project" ] && exit 0

if [ "$(cat .venv/.lock 2>/dev/null || true)" != "$lock" ]; then
  if [ ! -x .venv/bin/python ]; then
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
      if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
        python=$candidate
        break
      fi
    done
    if [ -z "${python:-}" ]; then
      echo "make: Python 3.11 or newer is needed, and none was found. Install one, or say which: make PYTHON=/path/to/python3.12 run" >&2
      exit 2
    fi
    echo "setting up .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
      echo "make: $python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2
      rm -rf .venv
      exit 2
    fi
  fi
  echo "installing requirements.lock (about 1 GB, a few minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
# Programs of this environment find each other, activated or not: `.venv/bin/dvc repro` runs `dagobert clean`.
cp tools/environment.pth "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dagobert-environment.pth"
# DVC unpickles from its site cache: keep it private to this checkout instead of /var/tmp.
.venv/bin/dvc config --quiet --local core.site_cache_dir "$PWD/.dvc/tmp/site-cache"
.venv/bin/python tools/plots_page.py
printf %s "$project" > .venv/.project
printf %s "$lock" > .venv/.lock
