#!/usr/bin/env bash
# Make a virtual environment at $1 with the Python named by $PYTHON (3.11 or newer).
# Debian and Ubuntu ship Python without venv; where this can be mended by apt-get, it is.
set -euo pipefail
folder=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "llmkit needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1)." >&2
    echo "Name another one: make install PYTHON=python3.12" >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq "$version"
    else
        echo "This Python has no venv. Install it first: sudo apt-get install $version" >&2
        exit 2
    fi
fi
# An environment that an interrupted run left behind has no pip; one of another Python was not asked for.
wanted=$("$python" -c 'import sys; print(sys.version_info[:2])')
found=$("$folder/bin/python" -c 'import pip, sys; print(sys.version_info[:2])' 2>/dev/null || true)
[ "$found" = "$wanted" ] || "$python" -m venv --clear "$folder"
