# shellcheck shell=bash
# Sourced by the scripts that start work: bad input in one line, commands shown or run.

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

# split_arguments ARGUMENT...: sets OPTIONS to those before `--` and JOB to the command behind it.
# A training's arguments are options of the script, with and without `-- train` before them.
split_arguments() {
  OPTIONS=() JOB=()
  while (($#)); do
    if [[ $1 == -- ]]; then
      shift
      (($#)) || fail "no command behind --; see --help"
      if [[ $1 == train ]]; then
        shift
        OPTIONS+=("$@")
      else
        [[ $1 != -* ]] || fail "expected a command behind --, as in -- invert, got '$1'"
        JOB=("$@")
      fi
      return
    fi
    OPTIONS+=("$1")
    shift
  done
}

# check_job WORKDIR PROCESSES OPTION: where there is a JOB, sets OUT to its --out, and WORKDIR, for
# logs, to OUT.run unless it was given. Only some commands share their work among processes.
check_job() {
  local word previous=
  OUT='' WORKDIR="$1"
  for word in "${JOB[@]}"; do
    if [[ $word == --out=?* ]]; then OUT="${word#*=}"; fi
    if [[ $previous == --out ]]; then OUT="$word"; fi
    previous="$word"
  done
  while [[ $OUT == ?*/ ]]; do OUT="${OUT%/}"; done
  if [[ -z $WORKDIR ]]; then
    [[ -n $OUT ]] || fail "--workdir is missing, for logs, as ${JOB[0]} has no --out; see --help"
    WORKDIR="$OUT.run"
  fi
  [[ -z $CONFIG ]] || fail "--config: is for trainings, not for ${JOB[0]}"
  ((${#TRAIN[@]} == 0)) || fail "unknown argument '${TRAIN[0]}' before --; see --help"
  (($2 == 1)) || is_shared || fail "$3: ${JOB[0]} runs in one process"
}

# is_shared: several processes can do a part of JOB each, into one --out.
is_shared() {
  [[ " align edit evaluate invert masks mix " == *" ${JOB[0]} "* ||
    "${JOB[*]:0:2}" == "directions global" ]]
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

# plan_and_end TARGET: prints what the training needs on that machine, by its compiler, and ends.
plan_and_end() {
  ((${#JOB[@]} == 0)) || fail "--plan: is for trainings, not for ${JOB[0]}"
  require_config "$CONFIG"
  if [[ -n $DRY_RUN ]]; then INTERESTYLE=${INTERESTYLE:-interestyle}; else find_interestyle; fi
  run "$INTERESTYLE" plan "--config=$CONFIG" "--target=$1" ${TRAIN[@]+"${TRAIN[@]}"}
  exit 0
}

# is_completed WORKDIR: the run there has done all of its steps.
is_completed() {
  grep -Eqs '^ {1,2}"status": "completed"' "$1/report.json"
}
