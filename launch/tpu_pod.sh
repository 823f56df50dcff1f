#!/usr/bin/env bash
# Trains, or runs another command, on all hosts of a Cloud TPU slice, from this checkout; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/commands.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/tpu_pod.sh --name=NAME --zone=ZONE --accelerator=TYPE --config=FILE[:ARG]
                              --workdir=DIR [OPTION ...] [TRAIN-ARGUMENT ...]
       bash launch/tpu_pod.sh --name=NAME --zone=ZONE --accelerator=TYPE [OPTION ...]
                              -- COMMAND ARGUMENT ...

Makes a Cloud TPU VM (or takes the one of that name that is ready), copies the last commit of this
checkout to all of its workers, installs it there, trains on all of them, shows what worker 0
prints, and deletes the TPU that it made. Needs gcloud, logged in, with a project.

  --name=NAME          of the TPU
  --zone=ZONE          e.g. us-central2-b
  --accelerator=TYPE   e.g. v5litepod-16, v5p-32, v6e-16
  --runtime=VERSION    TPU software (default: by the type, as Google's documentation has it)
  --config=FILE[:ARG]  a config of this checkout
  --workdir=DIR        an absolute path on a disk that all workers share (see below)
  --shared=DIR         its folders data/ and weights/ are seen as those of the checkout, where
                       configs look
  --setup=COMMAND      runs on every worker before anything else, e.g. to mount that disk
  --project=PROJECT    default: gcloud's
  --spot               a spot TPU, cheaper, which Google may take back
  --queued             wait for capacity in a queued resource
  --keep               do not delete the TPU at the end
  --max-restarts=K     after a crash, or a spot TPU that was taken back (default 3)
  --pause=SECONDS      before a restart, and between looks at a queue (default 30)
  --plan               print what the training needs on such a slice, by the compiler of TPUs, and
                       end; no TPU is made, and --name, --zone and --workdir are not needed
                       (docs/plan.md; pip install '.[plan-tpu]')
  --dry-run            show every command, run none
  --help               this text

Other arguments, such as --config.batch_size=64, go to `interestyle train`. Behind -- stands any
other command of interestyle, whose --out is an absolute path on the shared disk. Of invert, edit,
mix, align, masks, evaluate and directions global each worker does its part; others run on worker 0.
The work directory, for logs, is then the --out with ".run", unless it is given:

  bash launch/tpu_pod.sh --name=pod --zone=us-central2-b --accelerator=v5litepod-16 --setup=... \
      -- invert --weights=/mnt/W --input=/mnt/photos --out=/mnt/inverted

The work directory, the data set and the weights must be in a bucket (gs://BUCKET/FOLDER), or on a
disk that every worker has mounted at the same path: Filestore (NFS); --setup can mount it. The --out
of other commands must be on such a disk. A work directory on a disk is checked on all workers before
the work. Every worker writes DIR/logs/worker_I.log; of a run in a bucket DIR is /tmp/interestyle_NAME.

Ctrl-C and SIGTERM are passed on: the training saves its state and ends (other commands just end). The same call resumes
from there. A TPU that was ready before the call is not deleted.

Environment, kept where it is set already: JAX_COMPILATION_CACHE_DIR, a path on the workers (default
xla_cache in the --shared folder, else in the work directory).
TEXT
}

FOLDER='' NAME='' ZONE='' ACCELERATOR='' RUNTIME='' CONFIG='' WORKDIR='' SHARED='' SETUP='' PROJECT=''
SPOT='' QUEUED='' KEEP='' PLAN='' MAX_RESTARTS=3 PAUSE=30 TRAIN=() DATA=''
split_arguments "$@"
for argument in ${OPTIONS[@]+"${OPTIONS[@]}"}; do
  value="${argument#*=}"
  case "$argument" in
    --name=?*) NAME="$value" ;;
    --zone=?*) ZONE="$value" ;;
    --accelerator=?*) ACCELERATOR="$value" ;;
    --runtime=?*) RUNTIME="$value" ;;
    --config=?*) CONFIG="$value" ;;
    --workdir=?*) WORKDIR="$value" ;;
    --shared=?*) SHARED="$value" ;;
    --setup=?*) SETUP="$value" ;;
    --project=?*) PROJECT="$value" ;;
    --spot) SPOT=1 ;;
    --queued) QUEUED=1 ;;
    --keep) KEEP=1 ;;
    --max-restarts=*) MAX_RESTARTS="$value" ;;
    --pause=*) PAUSE="$value" ;;
    --plan) PLAN=1 ;;
    --dry-run) DRY_RUN=1 ;;
    --help | -h)
      usage
      exit 0
      ;;
    --config.data.dir=*)
      DATA="$value"
      TRAIN+=("$argument")
      ;;
    --config.*=* | --noconfig.*) TRAIN+=("$argument") ;;
    *) fail "unknown argument '$argument'; see --help" ;;
  esac
done

check_options() {
  require_option --name "$NAME"
  require_option --zone "$ZONE"
  require_option --accelerator "$ACCELERATOR"
  WORK=${JOB[0]:-training} OUT=''
  if ((${#JOB[@]})); then
    check_job "$WORKDIR" 1
  else
    require_config "$CONFIG"
    require_option --workdir "$WORKDIR"
  fi
  require_number --max-restarts "$MAX_RESTARTS" 0
  require_number --pause "$PAUSE" 0
  [[ $CONFIG != /* ]] || fail "--config: expected a path inside this checkout, got $CONFIG"
  [[ $OUT != gs://* ]] ||
    fail "--out: gs:// paths are not supported; mount the bucket on all workers (--setup, gcsfuse)"
  if [[ $WORKDIR == gs://?* ]] && ((!${#JOB[@]})); then
    FOLDER=/tmp/interestyle_$NAME
  else
    [[ $WORKDIR == /* ]] ||
      fail "--workdir: expected an absolute path on a shared disk, or a training's gs://BUCKET/FOLDER, got $WORKDIR"
    FOLDER=$WORKDIR
  fi
  [[ -z $OUT || $OUT == /* ]] || fail "--out: expected an absolute path on a shared disk, got $OUT"
  [[ -n $RUNTIME ]] || set_runtime
}

# set_runtime: the TPU software that Google's documentation names for the accelerator's type.
set_runtime() {
  case "$ACCELERATOR" in
    v4-*) RUNTIME=tpu-ubuntu2204-base ;;
    v5litepod-*) RUNTIME=v2-alpha-tpuv5-lite ;;
    v5p-*) RUNTIME=v2-alpha-tpuv5 ;;
    v6e-*) RUNTIME=v2-alpha-tpuv6e ;;
    *) fail "--accelerator: no TPU software is known for $ACCELERATOR; give --runtime" ;;
  esac
}

# set_target: the accelerator as `interestyle plan` names it, with the sides of its topology.
set_target() {
  local kind="${ACCELERATOR%-*}" count="${ACCELERATOR##*-}" power=0 known
  known="expected a slice such as v5litepod-16, v6e-8, v4-32 or v5p-8 with --plan"
  require_number --accelerator "$count" 1
  # In v4's and v5p's names the cores are counted, two a chip.
  if [[ $kind == v4 || $kind == v5p ]]; then count=$((count / 2)); fi
  while ((1 << (power + 1) <= count)); do power=$((power + 1)); done
  ((1 << power == count)) || fail "--accelerator: $ACCELERATOR, $known"
  case "$kind" in
    v5litepod | v6e)
      TARGET="${kind/litepod/e}:$((1 << power / 2))x$((1 << (power + 1) / 2))"
      ;;
    v4 | v5p)
      ((power >= 2)) || fail "--accelerator: $ACCELERATOR, $known"
      TARGET="$kind:$((1 << power / 3))x$((1 << (power + 1) / 3))x$((1 << (power + 2) / 3))"
      ((power > 2)) || TARGET="$kind:2x2x1"
      ;;
    *) fail "--accelerator: $ACCELERATOR, $known" ;;
  esac
}

# tpus WORD...: a `gcloud compute tpus` command in our zone and project.
tpus() {
  run gcloud compute tpus "$@" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"} --quiet
}

# on_workers WHICH COMMAND: on all workers, or on one.
on_workers() {
  tpus tpu-vm ssh "$NAME" "--worker=$1" "--command=$2"
}

# state_of KIND FORMAT: what gcloud says of our TPU or queued resource, nothing where it has none.
state_of() {
  gcloud compute tpus "$1" describe "$NAME" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"} \
    "--format=value($2)" 2>/dev/null || true
}

MADE=''
# ensure_tpu: our TPU is ready: the one that is there, or a new one. One that Google took is replaced.
ensure_tpu() {
  local state=
  if [[ -n $DRY_RUN ]]; then
    tpus tpu-vm describe "$NAME" "--format=value(state)"
  else
    state=$(state_of tpu-vm state)
  fi
  case "$state" in
    READY)
      echo "tpu_pod: $NAME is ready"
      return
      ;;
    '') ;;
    PREEMPTED | TERMINATED) delete_tpu || return ;;
    *) fail "--name: $NAME is $state, expected READY or no such TPU" ;;
  esac
  MADE=1
  if [[ -n $QUEUED ]]; then
    tpus queued-resources create "$NAME" "--node-id=$NAME" "--accelerator-type=$ACCELERATOR" \
      "--runtime-version=$RUNTIME" ${SPOT:+--spot} && wait_in_queue
  else
    tpus tpu-vm create "$NAME" "--accelerator-type=$ACCELERATOR" "--version=$RUNTIME" \
      ${SPOT:+--spot}
  fi
}

wait_in_queue() {
  local state
  if [[ -n $DRY_RUN ]]; then
    tpus queued-resources describe "$NAME" "--format=value(state.state)"
    return
  fi
  while state=$(state_of queued-resources state.state) && [[ $state != ACTIVE ]]; do
    [[ -z $STOPPING ]] || return 1
    case "$state" in
      FAILED | SUSPENDED | '')
        echo "error: the queued resource $NAME is ${state:-gone}" >&2
        return 1
        ;;
    esac
    echo "tpu_pod: $NAME is $state, waiting"
    sleep "$PAUSE"
  done
}

delete_tpu() {
  if [[ -n $QUEUED ]]; then
    tpus queued-resources delete "$NAME" --force
  else
    tpus tpu-vm delete "$NAME"
  fi
}

# install: the last commit of this checkout, in a Python of its own, on all workers.
install() {
  local archive="$SCRATCH/interestyle_jax.tar.gz"
  run git archive --format=tar.gz "--output=$archive" HEAD &&
    tpus tpu-vm scp "$archive" "$NAME:" --worker=all &&
    # TPU VMs may have an older Python than we need: uv brings one.
    on_workers all "mkdir -p interestyle_jax &&\
 tar -xzf interestyle_jax.tar.gz -C interestyle_jax && cd interestyle_jax &&\
 python3 -m pip install --quiet --user uv &&\
 python3 -m uv venv --quiet --allow-existing --python 3.11 .venv &&\
 python3 -m uv pip install --quiet --python .venv/bin/python --constraint constraints.txt\
 --editable '.[tpu,gcs]'"
}

# tell_part METADATA WORKERS: shell code that says to a command which part of it the worker does.
tell_part() {
  ((${#JOB[@]})) && [[ $2 == all ]] || return 0
  echo " hosts=\$(curl -s -H Metadata-Flavor:Google $1/worker-network-endpoints | tr -cd ,) &&\
 export JAX_PROCESS_ID=\$worker JAX_NUM_PROCESSES=\$((\${#hosts} + 1)) &&"
}

# link_shared: data/ and weights/ of the shared disk, in the checkouts.
link_shared() {
  local shared
  [[ -n $SHARED ]] || return 0
  shared=$(quoted "$SHARED")
  on_workers all "cd interestyle_jax && for folder in data weights; do\
 [ -e \$folder ] || [ ! -d $shared/\$folder ] || ln -s $shared/\$folder \$folder || exit 1; done"
}

# check_disk: the places that all workers have to see.
check_disk() {
  if [[ $WORKDIR == gs://* ]]; then
    on_workers all "mkdir -p $(quoted "$FOLDER/logs")" || return
  else
    check_shared || return
  fi
  if [[ -n $DATA && $DATA != gs://* ]]; then
    on_workers all "cd interestyle_jax && test -d $(quoted "$DATA") || { echo \"error: --config.data.dir is not there\
 on \$(hostname)\" >&2; exit 2; }"
  fi
}

# check_shared: what worker 0 writes to the work directory, all workers see.
check_shared() {
  local marker
  marker=$(quoted "$WORKDIR/.shared_$NAME")
  on_workers 0 "mkdir -p $(quoted "$WORKDIR/logs") && touch $marker" &&
    on_workers all "test -e $marker || { echo \"error: --workdir is not on a disk that\
 \$(hostname) shares with worker 0\" >&2; exit 2; }" &&
    on_workers 0 "rm $marker"
}

# work: the command on all workers at once, where they can share it; worker 0 prints, all write logs.
# In a training JAX finds the other workers itself.
work() {
  local command metadata cache status workers=all
  if ((${#JOB[@]})); then
    command=$(quoted .venv/bin/interestyle "${JOB[@]}")
    is_shared || workers=0
  else
    command=$(quoted .venv/bin/interestyle train "--config=$CONFIG" "--workdir=$WORKDIR" \
      ${TRAIN[@]+"${TRAIN[@]}"})
  fi
  # Worker 0 alone writes the cache, so it lies where all can read it.
  cache=$(quoted "JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-${SHARED:-$WORKDIR}/xla_cache}")
  metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
  on_workers "$workers" "cd interestyle_jax && export $cache &&\
 worker=\$(curl -s -H Metadata-Flavor:Google $metadata/agent-worker-number) &&\
$(tell_part "$metadata" "$workers") log=$(quoted "$FOLDER")/logs/worker_\$worker.log && echo \$\$ >\$HOME/interestyle.pid &&\
 if [ \"\$worker\" = 0 ]; then exec $command > >(tee -a \"\$log\") 2>&1;\
 else exec $command >>\"\$log\" 2>&1; fi" &
  RUNNING=$!
  status=0
  wait "$RUNNING" || status=$?
  # A trap ends `wait` early: the training continues until it has saved.
  while kill -0 "$RUNNING" 2>/dev/null; do
    status=0
    wait "$RUNNING" || status=$?
  done
  RUNNING=''
  return "$status"
}

RUNNING='' STOPPING=''
stop() {
  STOPPING=1
  echo "tpu_pod: stopping the $WORK, the same call continues" >&2
  # shellcheck disable=SC2016  # The worker's shell reads the file.
  [[ -z $RUNNING ]] || on_workers all 'kill -TERM $(cat $HOME/interestyle.pid)' || true
}

clean_up() {
  local status=$?
  trap - EXIT
  if [[ -n $MADE && -z $KEEP ]]; then
    delete_tpu || echo "tpu_pod: $NAME could not be deleted, it still costs money" >&2
  fi
  rm -rf "$SCRATCH"
  exit "$status"
}

# attempt: everything from the TPU to the end of the work.
attempt() {
  ensure_tpu || return
  [[ -z $SETUP ]] || on_workers all "$SETUP" || return
  install && link_shared && check_disk && [[ -z $STOPPING ]] && work
}

if [[ -n $PLAN ]]; then
  require_option --accelerator "$ACCELERATOR"
  set_target
  plan_and_end "$TARGET"
fi
check_options
if [[ -n $DRY_RUN ]]; then
  SCRATCH=/tmp
  attempt
  [[ -n $KEEP ]] || delete_tpu
  exit 0
fi
require_command gcloud "install the Google Cloud CLI and log in (gcloud auth login)"
require_command git "the checkout is sent as an archive of its last commit"
git rev-parse --verify --quiet HEAD >/dev/null || fail "this is no git checkout with a commit"
[[ -z $(git status --porcelain --untracked-files=no) ]] ||
  echo "tpu_pod: changes that are not committed are not sent" >&2
((${#JOB[@]})) || git cat-file -e "HEAD:${CONFIG%%:*}" 2>/dev/null ||
  fail "--config: ${CONFIG%%:*} is not committed"
[[ -n $PROJECT || -n $(gcloud config get-value project 2>/dev/null) ]] ||
  fail "gcloud has no project; give --project, or run gcloud config set project NAME"

SCRATCH=$(mktemp -d)
trap clean_up EXIT
trap stop TERM INT
for ((restart = 0; ; restart++)); do
  status=0
  attempt || status=$?
  [[ -z $STOPPING && $status != 0 && $status != 2 ]] || exit "$status"
  if ((restart >= MAX_RESTARTS)); then
    echo "error: the $WORK ended with status $status, after $restart restarts;" \
      "see $FOLDER/logs on the workers' disk" >&2
    exit "$status"
  fi
  echo "tpu_pod: ended with status $status; restart $((restart + 1)) of $MAX_RESTARTS" >&2
  sleep "$PAUSE"
done
