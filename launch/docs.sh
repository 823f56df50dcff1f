#!/usr/bin/env bash
# Builds the API reference from the docstrings; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/docs.sh [--out=DIR]

Makes the virtual environment .venv (unless it is there), installs the package and pdoc, and writes
the API reference, one page per module, to DIR. A docstring or type that cannot be shown is an error.

  --out=DIR   where the pages go (default: site); open DIR/index.html
  --help      this text
TEXT
}

read_folder out site "$@"
OUT=$FOLDER

stage "install into .venv" install_environment docs
stage "API reference" env JAX_PLATFORMS=cpu "$ENVIRONMENT_PYTHON" launch/api_reference.py "$OUT"
echo "$OUT/index.html"
