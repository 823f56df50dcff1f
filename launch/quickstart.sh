#!/usr/bin/env bash
# From nothing to a trained and measured encoder; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/quickstart.sh [--dir=DIR]

Makes the virtual environment .venv (unless it is there), installs the package, draws a small
avatar set, trains an IntereStyle encoder on it from scratch with the generator that ships with
the package, and evaluates that encoder beside the shipped one on held-out avatars.

  --dir=DIR   where the data set, the run and the report go (default: quickstart)
  --help      this text

What an earlier call finished is not done again; an interrupted training resumes from its last
checkpoint. PYTHON=/path/to/python chooses the interpreter (default python3; 3.11 or later).
TEXT
}

DIR=quickstart
for argument in "$@"; do
  case "$argument" in
    --dir=?*) DIR="${argument#--dir=}" ;;
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

interestyle() {
  "$ENVIRONMENT_PYTHON" -m interestyle_jax "$@"
}

prepare_data() {
  if [[ -d $DIR/data ]]; then
    echo "    $DIR/data is there already"
  else
    interestyle data avatars --out "$DIR/data" --size=64 --train=1500 --validation=64 --test=128
  fi
}

train_encoder() {
  interestyle train --config=configs/demo.py:quickstart --workdir="$DIR/run" \
    --config.data.dir="$DIR/data"
}

evaluate_encoder() {
  if [[ $DIR/report/table.md -nt $DIR/run/weights/metadata.json ]]; then
    echo "    $DIR/report is there already"
  else
    # Its table is printed at the very end.
    interestyle evaluate --weights="$DIR/run/weights" --name="trained here" \
      --weights=avatar_interestyle --name=shipped \
      --data="$DIR/data" --out="$DIR/report" >/dev/null
  fi
}

stage "install into .venv" install_environment
stage "draw the avatar set" prepare_data
stage "train the encoder" train_encoder
stage "evaluate on held-out avatars" evaluate_encoder

cat <<TEXT

Done in $SECONDS s.
  the run (configuration, curves, checkpoints)   $DIR/run
  the trained encoder                            $DIR/run/weights
  table                                          $DIR/report/table.md
  numbers                                        $DIR/report/metrics.json
  image grids and figures                      $DIR/report/figures

TEXT
cat "$DIR/report/table.md"
