#!/usr/bin/env bash
# Sets up .venv and runs the tests; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/test.sh [PYTEST-ARGUMENT ...]

Makes the virtual environment .venv (unless it is there), installs the package with what its
tests need, and runs every test that is not marked slow, a process for every core, up to four.
Arguments go to pytest:

  bash launch/test.sh tests/models -k batch_norm
  bash launch/test.sh -n 0 --pdb         in one process
  bash launch/test.sh -m slow            the slow tests instead

PYTHON=/path/to/python chooses the interpreter (default python3; 3.11 or later).
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi

stage "install into .venv" install_environment dev
stage "pytest" "$ENVIRONMENT_PYTHON" -m pytest "${PARALLEL[@]}" -m "not slow" "$@"
echo "All done in $SECONDS s."
