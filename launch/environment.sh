# shellcheck shell=bash
# Sourced by the scripts beside it: timed stages, and the virtual environment in .venv.

ENVIRONMENT_PYTHON=.venv/bin/python
# pytest on several cores; a file's tests, which share fixtures, run in one process.
# shellcheck disable=SC2034  # For the scripts that source this.
PARALLEL=(-n auto --maxprocesses=4 --dist=loadfile)

# use_cores: on a CPU, XLA's convolutions keep little more than one core busy; a device for every core
# (a power of two up to four, which divides a batch) trains faster. The caller's choice stays.
use_cores() {
  local cores devices=1
  cores=$(getconf _NPROCESSORS_ONLN)
  while ((devices * 2 <= cores && devices < 4)); do devices=$((devices * 2)); done
  export JAX_NUM_CPU_DEVICES=${JAX_NUM_CPU_DEVICES:-$devices}
}

# stage NAME COMMAND...: run it, say how long it took; on failure name the stage and leave.
stage() {
  local name="$1" start=$SECONDS status=0
  shift
  echo "==> $name"
  "$@" || status=$?
  if ((status != 0)); then
    echo "FAILED: $name (exit status $status, after $((SECONDS - start)) s)" >&2
    exit "$status"
  fi
  echo "    $name: $((SECONDS - start)) s"
}

# read_folder NAME DEFAULT [ARGUMENT]...: sets FOLDER to the DIR of --NAME=DIR, or to DEFAULT. --help
# calls the script's `usage`; anything else is refused.
# shellcheck disable=SC2034  # For the scripts that source this.
read_folder() {
  local name="$1" argument
  FOLDER="$2"
  shift 2
  for argument in "$@"; do
    case "$argument" in
      "--$name="?*) FOLDER="${argument#"--$name="}" ;;
      --help | -h)
        usage
        exit 0
        ;;
      *)
        echo "error: unknown argument '$argument'; see --help" >&2
        exit 2
        ;;
    esac
  done
}

# require_python: $PYTHON, or python3, must be 3.11 or later and able to make an environment.
require_python() {
  PYTHON="${PYTHON:-python3}"
  if ! command -v "$PYTHON" >/dev/null; then
    echo "error: '$PYTHON' not found; install Python 3.11 or later, or set PYTHON=/path/to/python" >&2
    return 2
  fi
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $PYTHON is $("$PYTHON" --version 2>&1), 3.11 or later is needed;" \
      "set PYTHON=/path/to/python3.11" >&2
    return 2
  fi
  if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "error: $PYTHON has no venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2
    return 2
  fi
}

# install_environment [EXTRA]: the package, editable, in .venv. Nothing is done where
# the same extra was installed there since the files that say what to install last changed.
install_environment() {
  local requirement=.${1:+[$1]}
  local stamp=.venv/installed-${1:-base}
  if [[ $stamp -nt pyproject.toml && $stamp -nt setup.py && $stamp -nt constraints.txt ]]; then
    echo "    .venv is up to date"
    return 0
  fi
  if ! "$ENVIRONMENT_PYTHON" -m pip --version >/dev/null 2>&1; then
    require_python && "$PYTHON" -m venv --clear .venv || return
  fi
  "$ENVIRONMENT_PYTHON" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable "$requirement" && touch "$stamp"
}
