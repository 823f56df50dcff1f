#!/usr/bin/env bash
# What a pod of launch/gke/submit.sh runs: `interestyle` with the command and arguments given, or
# `interestyle train` where they begin with an option.
#
# A training that was asked to stop saves and ends with status 0, which Kubernetes would take for
# the end of the work: where it is not completed, pod 0 ends with 75, so that JobSet starts all pods
# again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/commands.sh

UNFINISHED=75
WORKDIR=''
for argument in "$@"; do
  [[ $argument != --workdir=* ]] || WORKDIR="${argument#*=}"
done
if (($# == 0)) || [[ $1 == -* ]]; then
  require_option --workdir "$WORKDIR"
  set -- train "$@"
fi
find_interestyle
# Configs name weights/... and data/...: these folders of the shared volume appear in the checkout.
for folder in weights data; do
  [[ -e $folder || ! -d ${SHARED:-}/$folder ]] || ln -s "$SHARED/$folder" "$folder"
done

# The pod's first process gets no default signal handlers: SIGTERM has to be passed on by hand.
"$INTERESTYLE" "$@" &
working=$!
trap 'kill -TERM "$working" 2>/dev/null || true' TERM
status=0
wait "$working" || status=$?
# The trap ends `wait` early: the training continues until it has saved.
while kill -0 "$working" 2>/dev/null; do
  status=0
  wait "$working" || status=$?
done
if ((status == 0)) && [[ $1 == train && ${JOB_COMPLETION_INDEX:-0} == 0 ]] &&
  ! is_completed "$WORKDIR"; then
  echo "pod: saved, not completed; status $UNFINISHED, to be started again" >&2
  exit "$UNFINISHED"
fi
exit "$status"
