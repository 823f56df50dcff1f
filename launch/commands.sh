# shellcheck shell=bash
# Sourced by the scripts that start trainings: bad input in one line, commands shown or run.

DRY_RUN=${DRY_RUN:-}

# fail MESSAGE...: one line, status 2.
fail() {
  echo "error: $*" >&2
  exit 2
}

# macOS has 3.2.
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || fail "bash $BASH_VERSION is too old, need 4.4"

# require_command NAME HINT...: NAME is on the PATH, or the script ends.
require_command() {
  local name="$1"
  shift
  command -v "$name" >/dev/null || fail "$name not found; $*"
}

# require_number OPTION VALUE LEAST: VALUE is a whole number from LEAST.
require_number() {
  if ! [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || (($2 < $3)); then
    fail "$1: expected a whole number from $3, got '$2'"
  fi
}

# require_option OPTION VALUE: it was given.
require_option() {
  [[ -n $2 ]] || fail "$1 is missing; see --help"
}

# require_config FILE[:ARG]: the config file is there, or is named as configs/NAME.py is.
require_config() {
  require_option --config "$1"
  [[ -f ${1%%:*} || -f configs/${1%%:*}.py ]] || fail "--config: ${1%%:*} not found"
}

# find_interestyle: sets INTERESTYLE to the command, unless the caller did.
find_interestyle() {
  if [[ -z ${INTERESTYLE:-} ]]; then
    INTERESTYLE=.venv/bin/interestyle
    [[ -x $INTERESTYLE ]] || INTERESTYLE=$(command -v interestyle) || INTERESTYLE=
  fi
  [[ -n $INTERESTYLE && -x $(command -v "$INTERESTYLE") ]] ||
    fail "no interestyle command: neither .venv/bin/interestyle nor on the PATH;" \
      "install the package, or set INTERESTYLE=/path/to/interestyle"
}

# quoted WORD...: the words as they can be pasted into a shell.
quoted() {
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# run COMMAND...: runs it; with DRY_RUN only shows it.
run() {
  if [[ -n $DRY_RUN ]]; then
    quoted "$@"
  else
    "$@"
  fi
}

# is_completed WORKDIR: the run there has done all of its steps.
is_completed() {
  grep -qs '^  "status": "completed"' "$1/report.json"
}
