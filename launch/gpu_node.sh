#!/usr/bin/env bash
# Trains, or runs another command, on all GPUs of one node, also after a crash; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/commands.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/gpu_node.sh --config=FILE[:ARG] --workdir=DIR [OPTION ...] [TRAIN-ARGUMENT ...]
       bash launch/gpu_node.sh [OPTION ...] -- COMMAND ARGUMENT ...

Trains a config on this machine, on all of its GPUs (or those that CUDA_VISIBLE_DEVICES names).
After a crash the training resumes from its last checkpoint. Other arguments, such as
--config.batch_size=32, go to `interestyle train`. Paths are relative to the repository.

Behind -- stands any other command of interestyle, as in

  bash launch/gpu_node.sh -- invert --weights=W --input=photos/ --out=inverted/

With --processes=N, of invert, edit, mix, align, masks, evaluate and directions global each process
does its part on GPUs of its own, and continues where another one dies. Logs go to --workdir, by
default the --out with ".run".

  --processes=N      processes that share the GPUs evenly (default 1: one drives them all)
  --gpus=N           GPUs to share (default: as many as nvidia-smi lists)
  --platform=cpu     train on CPU, for tests and machines without a GPU (default cuda)
  --devices=N        CPU devices of each process, with --platform=cpu (default 1)
  --max-restarts=K   how often it is started again after a crash (default 3)
  --pause=SECONDS    before it is started again (default 10)
  --grace=SECONDS    for processes to end after SIGTERM, or after another one died (default 120)
  --min-free=GB      free space that the work directory's disk must have (default 20)
  --plan[=TARGET]    print what the training needs on the GPUs of this machine, or of another, as
                     h100x8, by the compiler of GPUs, and end; --workdir is not needed
                     (docs/plan.md; pip install '.[plan-gpu]')
  --dry-run          show the commands, do nothing
  --help             this text

SIGTERM and Ctrl-C are passed on: the training saves its state and ends with status 0 (other
commands just end), and is not started again; the same call resumes from there. Status 2 (bad input) is not tried again either.
What process I prints goes to the terminal and to DIR/logs/process_I.log.

Environment, each kept where it is set already: INTERESTYLE (the command), XLA_FLAGS (added to),
XLA_PYTHON_CLIENT_MEM_FRACTION (0.9), JAX_COMPILATION_CACHE_DIR (~/.cache/interestyle_jax/xla).
TEXT
}

CONFIG='' WORKDIR='' PROCESSES=1 GPUS='' PLATFORM=cuda DEVICES=1
MAX_RESTARTS=3 PAUSE=10 GRACE=120 MIN_FREE=20 TRAIN=() PLAN=''
split_arguments "$@"
for argument in ${OPTIONS[@]+"${OPTIONS[@]}"}; do
  value="${argument#*=}"
  case "$argument" in
    --config=?*) CONFIG="$value" ;;
    --workdir=?*) WORKDIR="$value" ;;
    --processes=*) PROCESSES="$value" ;;
    --gpus=*) GPUS="$value" ;;
    --platform=*) PLATFORM="$value" ;;
    --devices=*) DEVICES="$value" ;;
    --max-restarts=*) MAX_RESTARTS="$value" ;;
    --pause=*) PAUSE="$value" ;;
    --grace=*) GRACE="$value" ;;
    --min-free=*) MIN_FREE="$value" ;;
    --plan) PLAN=here ;;
    --plan=?*) PLAN="$value" ;;
    --dry-run) DRY_RUN=1 ;;
    --help | -h)
      usage
      exit 0
      ;;
    --config.*=* | --noconfig.*) TRAIN+=("$argument") ;;
    *) fail "unknown argument '$argument'; see --help" ;;
  esac
done

check_options() {
  require_number --processes "$PROCESSES" 1
  if ((${#JOB[@]})); then
    WORK=${JOB[0]}
    check_job "$WORKDIR" "$PROCESSES" --processes
  else
    WORK=training
    require_config "$CONFIG"
    require_option --workdir "$WORKDIR"
  fi
  require_number --devices "$DEVICES" 1
  require_number --max-restarts "$MAX_RESTARTS" 0
  require_number --pause "$PAUSE" 0
  require_number --grace "$GRACE" 1
  require_number --min-free "$MIN_FREE" 0
  [[ $PLATFORM == cuda || $PLATFORM == cpu ]] ||
    fail "--platform: expected cuda or cpu, got '$PLATFORM'"
  [[ -z $GPUS ]] || require_number --gpus "$GPUS" 1
}

# count_gpus: sets GPUS, and checks that the processes can share them.
count_gpus() {
  if [[ -z $GPUS ]]; then
    require_command nvidia-smi "this needs an NVIDIA driver, or --platform=cpu"
    if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
      GPUS=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
    else
      GPUS=$(nvidia-smi --list-gpus | grep -c '^GPU') || fail "nvidia-smi lists no GPU"
    fi
  fi
  ((GPUS % PROCESSES == 0)) ||
    fail "--processes: $PROCESSES processes cannot share $GPUS GPUs evenly"
}

# set_target: the devices of this machine as `interestyle plan` names them.
set_target() {
  local name
  TARGET="$PLAN"
  [[ $PLAN == here ]] || return 0
  if [[ $PLATFORM == cpu ]]; then
    export JAX_NUM_CPU_DEVICES=$((PROCESSES * DEVICES))
    TARGET="cpux$JAX_NUM_CPU_DEVICES"
    return
  fi
  require_command nvidia-smi "give --plan=TARGET for another machine, as --plan=h100x8"
  count_gpus
  read -r name < <(nvidia-smi --query-gpu=name --format=csv,noheader) || true
  case "$name" in
    *H100*) TARGET="h100x$GPUS" ;;
    *A100*) TARGET="a100x$GPUS" ;;
    *) fail "--plan: no compiler for ${name:-GPUs without a name}; give --plan=TARGET, as --plan=h100x8" ;;
  esac
}

check_disk() {
  local place="$WORKDIR" free
  while [[ ! -e $place ]]; do place=$(dirname "$place"); done
  [[ -d $place && -w $place ]] || fail "--workdir: $place is not a directory that can be written"
  free=$(df -Pk "$place" | awk 'NR == 2 { print int($4 / 1048576) }')
  ((free >= MIN_FREE)) ||
    fail "--workdir: $free GB free on the disk of $place, expected $MIN_FREE (--min-free)"
}

# set_environment: what JAX and XLA read, the same for all processes.
set_environment() {
  export JAX_PLATFORMS="$PLATFORM"
  export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/interestyle_jax/xla}"
  SHOWN=("JAX_PLATFORMS=$JAX_PLATFORMS" "JAX_COMPILATION_CACHE_DIR=$JAX_COMPILATION_CACHE_DIR")
  if [[ $PLATFORM == cpu ]]; then
    export JAX_NUM_CPU_DEVICES="$DEVICES"
    SHOWN+=("JAX_NUM_CPU_DEVICES=$DEVICES")
    return
  fi
  # XLA ends the process at a flag it does not know, so none is set that may go away.
  if [[ ${XLA_FLAGS:-} != *xla_gpu_enable_latency_hiding_scheduler* ]]; then
    XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_gpu_enable_latency_hiding_scheduler=true"
  fi
  export XLA_FLAGS
  export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
  SHOWN+=("XLA_FLAGS=$XLA_FLAGS" "XLA_PYTHON_CLIENT_MEM_FRACTION=$XLA_PYTHON_CLIENT_MEM_FRACTION")
}

# free_port: one that nobody listens on. The process that has to bind it starts at once.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# set_command I PORT: sets COMMAND and OWN (its environment) to those of process I.
set_command() {
  local i="$1" port="$2" share ids
  OWN=()
  if ((${#JOB[@]})); then
    COMMAND=("$INTERESTYLE" "${JOB[@]}")
    ((PROCESSES > 1)) || return 0
    # They know nothing of each other but the folder, and each takes all GPUs that it sees.
    OWN=("JAX_PROCESS_ID=$i" "JAX_NUM_PROCESSES=$PROCESSES")
    if [[ $PLATFORM == cuda ]]; then
      share=$((GPUS / PROCESSES))
      IFS=, read -ra ids <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((GPUS - 1)))}"
      OWN+=("CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${ids[*]:i*share:share}")")
    fi
    return
  fi
  COMMAND=("$INTERESTYLE" train "--config=$CONFIG" "--workdir=$WORKDIR")
  if ((PROCESSES == 1)); then
    COMMAND+=(--distributed=off)
  else
    COMMAND+=("--coordinator=127.0.0.1:$port" "--num-processes=$PROCESSES" "--process-id=$i")
    if [[ $PLATFORM == cuda ]]; then
      share=$((GPUS / PROCESSES))
      OWN+=("JAX_LOCAL_DEVICE_IDS=$(seq -s, $((i * share)) $((i * share + share - 1)))")
    fi
  fi
  COMMAND+=(${TRAIN[@]+"${TRAIN[@]}"})
}

# start_process I PORT: process I in the background; its id is added to PIDS.
start_process() {
  local i="$1" log="$WORKDIR/logs/process_$1.log"
  set_command "$i" "$2"
  echo "--- $(date '+%F %T') $(quoted ${OWN[@]+"${OWN[@]}"} "${COMMAND[@]}")" >>"$log"
  # The readers outlive a signal to the whole group, so that nothing that is printed is lost.
  if ((PROCESSES == 1)); then
    env "${COMMAND[@]}" > >(trap '' INT TERM && exec tee -a "$log") 2>&1 &
  else
    env ${OWN[@]+"${OWN[@]}"} "${COMMAND[@]}" \
      > >(trap '' INT TERM && tee -a "$log" | sed -u "s/^/[$i] /") 2>&1 &
  fi
  PIDS+=($!)
}

STOPPING='' PIDS=()
# stop: SIGTERM to every process; trainings save and end.
stop() {
  STOPPING=1
  echo "gpu_node: stopping the $WORK, the same call continues" >&2
  ((${#PIDS[@]} == 0)) || kill -TERM "${PIDS[@]}" 2>/dev/null || true
}

# nap SECONDS: a signal's trap runs at once, and ends it.
nap() {
  sleep "$1" &
  wait $! || true
}

# wait_for_all: until every process has ended; sets STATUS: 2 where one has it, else the first not 0.
wait_for_all() {
  local pid code deadline='' left
  STATUS=0
  while ((${#PIDS[@]})); do
    nap 0.5
    left=()
    for pid in "${PIDS[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        left+=("$pid")
        continue
      fi
      code=0
      wait "$pid" 2>/dev/null || code=$?
      # Where one process has bad input, the others end because it is gone.
      if ((STATUS == 0 || code == 2)); then STATUS=$code; fi
    done
    PIDS=(${left[@]+"${left[@]}"})
    # Processes of a training wait for a lost one forever; those of other commands need none.
    if [[ -z $deadline ]] && { ((STATUS && ${#JOB[@]} == 0)) || [[ -n $STOPPING ]]; }; then
      deadline=$((SECONDS + GRACE))
    fi
    if [[ -n $deadline ]] && ((SECONDS > deadline && ${#PIDS[@]})); then
      echo "gpu_node: ${#PIDS[@]} of $PROCESSES processes did not end in $GRACE s: killed" >&2
      kill -KILL "${PIDS[@]}" 2>/dev/null || true
      ((STATUS)) || STATUS=1
      deadline=$((SECONDS + GRACE))
    fi
  done
}

# run_once: all processes from start to end; sets STATUS.
run_once() {
  local i port
  port=$(free_port)
  for ((i = 0; i < PROCESSES; i++)); do
    start_process "$i" "$port"
  done
  # A signal that came meanwhile has missed those that started after it.
  [[ -z $STOPPING ]] || stop
  wait_for_all
}

if [[ -n $PLAN ]]; then
  require_number --processes "$PROCESSES" 1
  require_number --devices "$DEVICES" 1
  set_target
  plan_and_end "$TARGET"
fi
check_options
if [[ -n $DRY_RUN ]]; then
  INTERESTYLE=${INTERESTYLE:-interestyle}
  [[ $PLATFORM == cpu ]] || ((PROCESSES == 1)) || count_gpus
  set_environment
  for ((i = 0; i < PROCESSES; i++)); do
    set_command "$i" 29500
    quoted env "${SHOWN[@]}" ${OWN[@]+"${OWN[@]}"} "${COMMAND[@]}"
  done
  exit 0
fi
find_interestyle
[[ $PLATFORM == cpu ]] || count_gpus
check_disk
set_environment
mkdir -p "$WORKDIR/logs" 2>/dev/null || fail "--workdir: $WORKDIR/logs cannot be made"
trap stop TERM INT

for ((attempt = 0; ; attempt++)); do
  run_once
  [[ -z $STOPPING ]] || exit "$STATUS"
  ((STATUS)) || exit 0
  ((STATUS != 2)) || exit 2
  if ((attempt >= MAX_RESTARTS)); then
    echo "error: the $WORK ended with status $STATUS, after $attempt restarts;" \
      "see $WORKDIR/logs" >&2
    exit "$STATUS"
  fi
  echo "gpu_node: the $WORK ended with status $STATUS; restart $((attempt + 1)) of" \
    "$MAX_RESTARTS in $PAUSE s" >&2
  nap "$PAUSE"
  [[ -z $STOPPING ]] || exit 0
done
