#!/usr/bin/env bash
# Submits a training, or another command, to Kubernetes as a JobSet; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/commands.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/gke/submit.sh --name=NAME --image=IMAGE --claim=CLAIM --config=FILE[:ARG]
                                 --workdir=DIR ACCELERATOR-OPTIONS [OPTION ...] [TRAIN-ARGUMENT ...]
       bash launch/gke/submit.sh --name=NAME --image=IMAGE --claim=CLAIM ACCELERATOR-OPTIONS
                                 [OPTION ...] -- COMMAND ARGUMENT ...

Writes a JobSet manifest, one pod a node, and applies it to the cluster that kubectl points to,
which needs the JobSet controller (jobset.sigs.k8s.io, 0.6 or later).

  --name=NAME          of the JobSet
  --image=IMAGE        built from launch/gke/Dockerfile
  --claim=CLAIM        PersistentVolumeClaim (ReadWriteMany, e.g. Filestore) with the data set, the
                       weights and the work directory; its folders data/ and weights/ are seen as
                       those of the checkout, where configs look
  --mount=DIR          where it is mounted in the pods (default /mnt/shared)
  --config=FILE[:ARG]  a config in the image
  --workdir=DIR        an absolute path below the mount
  --nodes=N            pods (default 1)
  --namespace=NAME     default: kubectl's
  --spot               on spot nodes
  --max-restarts=K     starts after a crash, a preemption or a lost node (default 10)
  --grace=SECONDS      for saving, after a pod was asked to end (default 300; spot nodes get 25)
  --dry-run            show the manifest and the commands, do nothing
  --help               this text

Accelerators, either of:
  --gpus=N --gpu-type=TYPE                    a node, e.g. 8 nvidia-h100-80gb
  --tpus=N --tpu-type=TYPE --topology=SHAPE   a node, e.g. 4 tpu-v5-lite-podslice 4x4 (4 nodes)

Other arguments, such as --config.batch_size=64, go to `interestyle train`. A
training that was asked to stop, or whose pod was lost, is started again on all pods and resumes
from its last checkpoint; bad input (status 2) ends the JobSet.

Behind -- stands any other command of interestyle, whose --out is an absolute path below the mount.
With --nodes=N, of invert, edit, mix, align, masks, evaluate and directions global each pod does its
part:

  bash launch/gke/submit.sh --name=invert --image=IMAGE --claim=CLAIM --nodes=4 --gpus=8 \
      --gpu-type=nvidia-h100-80gb -- invert --weights=weights/W --input=/mnt/shared/photos \
      --out=/mnt/shared/inverted
TEXT
}

NAME='' IMAGE='' CLAIM='' MOUNT=/mnt/shared CONFIG='' WORKDIR='' NODES=1 NAMESPACE='' SPOT=''
MAX_RESTARTS=10 GRACE=300 GPUS='' GPU_TYPE='' TPUS='' TPU_TYPE='' TOPOLOGY='' TRAIN=()
split_arguments "$@"
for argument in ${OPTIONS[@]+"${OPTIONS[@]}"}; do
  value="${argument#*=}"
  case "$argument" in
    --name=?*) NAME="$value" ;;
    --image=?*) IMAGE="$value" ;;
    --claim=?*) CLAIM="$value" ;;
    --mount=?*) MOUNT="$value" ;;
    --config=?*) CONFIG="$value" ;;
    --workdir=?*) WORKDIR="$value" ;;
    --nodes=*) NODES="$value" ;;
    --namespace=?*) NAMESPACE="$value" ;;
    --spot) SPOT=1 ;;
    --max-restarts=*) MAX_RESTARTS="$value" ;;
    --grace=*) GRACE="$value" ;;
    --gpus=*) GPUS="$value" ;;
    --gpu-type=?*) GPU_TYPE="$value" ;;
    --tpus=*) TPUS="$value" ;;
    --tpu-type=?*) TPU_TYPE="$value" ;;
    --topology=?*) TOPOLOGY="$value" ;;
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
  require_option --name "$NAME"
  # With "-workers-0-0" behind it, a pod's host name may have 63 characters.
  [[ $NAME =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    fail "--name: expected at most 40 small letters, digits and '-', got '$NAME'"
  require_option --image "$IMAGE"
  require_option --claim "$CLAIM"
  require_number --nodes "$NODES" 1
  if ((${#JOB[@]})); then
    [[ -z $WORKDIR ]] || fail "--workdir: is for trainings, ${JOB[0]} has no use for it"
    # Logs are those of the pods.
    check_job "$MOUNT/unused" "$NODES" --nodes
    [[ -z $OUT || $OUT == "$MOUNT"/* ]] || fail "--out: expected a path below $MOUNT, got $OUT"
  else
    require_config "$CONFIG"
    require_option --workdir "$WORKDIR"
    [[ $WORKDIR == "$MOUNT"/* ]] || fail "--workdir: expected a path below $MOUNT, got $WORKDIR"
  fi
  require_number --max-restarts "$MAX_RESTARTS" 0
  require_number --grace "$GRACE" 1
  if [[ -n $GPUS && -z $TPUS ]]; then
    require_number --gpus "$GPUS" 1
    require_option --gpu-type "$GPU_TYPE"
  elif [[ -n $TPUS && -z $GPUS ]]; then
    require_number --tpus "$TPUS" 1
    require_option --tpu-type "$TPU_TYPE"
    require_option --topology "$TOPOLOGY"
  else
    fail "expected --gpus and --gpu-type, or --tpus, --tpu-type and --topology"
  fi
}

# json TEXT: as a JSON string, which is YAML as well.
json() {
  local text="${1//\\/\\\\}"
  text="${text//\"/\\\"}"
  printf '"%s"' "$text"
}

# manifest: the JobSet. TPU pods learn of each other from what GKE sets, GPU pods from what we set.
manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $(json "$NAME")
spec:
  network:
    enableDNSHostnames: true
  failurePolicy:
    maxRestarts: $MAX_RESTARTS
    rules:
      # Bad input is not tried again; everything else starts all pods again.
      - action: FailJobSet
        onJobFailureReasons: ["PodFailurePolicy"]
  replicatedJobs:
    - name: workers
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: $NODES
          parallelism: $NODES
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: interestyle
                  operator: In
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $GRACE
              nodeSelector:
$(node_selector)
              tolerations:
                - key: nvidia.com/gpu
                  operator: Exists
                - key: google.com/tpu
                  operator: Exists
                - key: cloud.google.com/gke-spot
                  operator: Exists
              containers:
                - name: interestyle
                  image: $(json "$IMAGE")
                  args:
$(for word in "${WORDS[@]}"; do echo "                    - $(json "$word")"; done)
                  env:
                    - name: SHARED
                      value: $(json "$MOUNT")
                    - name: JAX_COMPILATION_CACHE_DIR
                      value: $(json "$MOUNT/xla_cache")
$(environment)
                  resources:
                    limits:
                      $RESOURCE
                  volumeMounts:
                    - name: shared
                      mountPath: $(json "$MOUNT")
                    # Workers that decode images pass them on in shared memory.
                    - name: memory
                      mountPath: /dev/shm
              volumes:
                - name: shared
                  persistentVolumeClaim:
                    claimName: $(json "$CLAIM")
                - name: memory
                  emptyDir:
                    medium: Memory
YAML
}

node_selector() {
  if [[ -n $GPUS ]]; then
    echo "                cloud.google.com/gke-accelerator: $(json "$GPU_TYPE")"
  else
    echo "                cloud.google.com/gke-tpu-accelerator: $(json "$TPU_TYPE")"
    echo "                cloud.google.com/gke-tpu-topology: $(json "$TOPOLOGY")"
  fi
  [[ -z $SPOT ]] || echo '                cloud.google.com/gke-spot: "true"'
}

environment() {
  [[ -n $GPUS ]] || return 0
  cat <<YAML
                    - name: XLA_FLAGS
                      value: "--xla_gpu_enable_latency_hiding_scheduler=true"
                    - name: XLA_PYTHON_CLIENT_MEM_FRACTION
                      value: "0.9"
YAML
  ((NODES > 1)) || return 0
  cat <<YAML
                    - name: JAX_COORDINATOR_ADDRESS
                      value: "$NAME-workers-0-0.$NAME:8476"
                    - name: JAX_NUM_PROCESSES
                      value: "$NODES"
                    - name: JAX_PROCESS_ID
                      valueFrom:
                        fieldRef:
                          fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
YAML
}

check_options
if ((${#JOB[@]})); then
  WORDS=("${JOB[@]}")
else
  WORDS=("--config=$CONFIG" "--workdir=$WORKDIR" ${TRAIN[@]+"${TRAIN[@]}"})
fi
RESOURCE="nvidia.com/gpu: ${GPUS:-}"
if [[ -n $TPUS ]]; then
  RESOURCE="google.com/tpu: $TPUS"
elif ((NODES == 1 && ${#JOB[@]} == 0)); then
  # Kubernetes alone is no reason to look for other processes.
  WORDS+=(--distributed=off)
fi
KUBECTL=(kubectl ${NAMESPACE:+"--namespace=$NAMESPACE"})
LOGS=("${KUBECTL[@]}" logs --follow
  "--selector=jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0")

if [[ -n $DRY_RUN ]]; then
  manifest
  echo "---"
  echo "# $(quoted "${KUBECTL[@]}" apply --filename=-)   (the manifest above)"
  echo "# $(quoted "${LOGS[@]}")"
  exit 0
fi
require_command kubectl "install it, and point it to the cluster"
"${KUBECTL[@]}" get crd jobsets.jobset.x-k8s.io >/dev/null ||
  fail "the cluster cannot be asked, or has no JobSet controller (https://jobset.sigs.k8s.io)"
"${KUBECTL[@]}" get pvc "$CLAIM" >/dev/null || fail "--claim: no PersistentVolumeClaim $CLAIM"
if "${KUBECTL[@]}" get jobset "$NAME" >/dev/null 2>&1; then
  fail "--name: a JobSet $NAME is there; delete it (kubectl delete jobset $NAME) or take another"
fi
manifest | "${KUBECTL[@]}" apply --filename=-
cat <<TEXT
submitted; what pod 0 prints:
  $(quoted "${LOGS[@]}")
the end of it:
  $(quoted "${KUBECTL[@]}" delete jobset "$NAME")
TEXT
