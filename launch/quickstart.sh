#!/usr/bin/env bash
# From nothing to a trained and measured encoder; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

usage() {
  cat <<'TEXT'
Usage: bash launch/quickstart.sh [--dir=DIR]

Makes the virtual environment .venv (unless it is there), installs the package, draws a small
avatar set, inverts eight held-out avatars with the encoder that ships with the package, trains an
encoder from scratch with the shipped generator, and evaluates both on held-out avatars.

  --dir=DIR   where the data set, the run and the report go (default: quickstart)
  --help      this text

What an earlier call finished is not done again; an interrupted training resumes from its last
checkpoint. PYTHON=/path/to/python chooses the interpreter (default python3; 3.11 or later).
TEXT
}

read_folder dir quickstart "$@"
DIR=$FOLDER
use_cores

GRID=$DIR/shipped/figures/grid_avatar_interestyle.png

interestyle() {
  "$ENVIRONMENT_PYTHON" -m interestyle_jax "$@"
}

prepare_data() {
  if [[ -d $DIR/data ]]; then
    echo "    $DIR/data is there already"
  else
    interestyle data avatars --out "$DIR/data" --size=64 --train=2500 --validation=64 --test=128
  fi
}

# Says where the first images are before the training, which takes minutes.
show_inversions() {
  if [[ -e $GRID ]]; then
    echo "    the shipped encoder's inversions are there already: $GRID"
  else
    interestyle evaluate --weights=avatar_interestyle --data="$DIR/data" --num-samples=8 \
      --out="$DIR/shipped" >/dev/null
    echo "    eight held-out avatars, inverted by the shipped encoder: $GRID"
  fi
}

train_encoder() {
  interestyle train --config=configs/avatar_interestyle.py:quickstart --workdir="$DIR/run" \
    --config.data.dir="$DIR/data"
}

evaluate_encoder() {
  if [[ $DIR/report/table.md -nt $DIR/run/weights/metadata.json ]]; then
    echo "    $DIR/report is there already"
  else
    # A report of earlier weights; one that was not finished is continued.
    if [[ -e $DIR/report/table.md ]]; then rm -r "$DIR/report"; fi
    # Its table is printed at the very end.
    interestyle evaluate --weights="$DIR/run/weights" --name="trained here" \
      --weights=avatar_interestyle --name=shipped \
      --data="$DIR/data" --out="$DIR/report" >/dev/null
  fi
}

stage "install into .venv" install_environment
stage "draw the avatar set" prepare_data
stage "invert eight avatars" show_inversions
stage "train the encoder" train_encoder
stage "evaluate on held-out avatars" evaluate_encoder

cat <<TEXT

Done in $SECONDS s.
  the run (configuration, curves, checkpoints)   $DIR/run
  the trained encoder                            $DIR/run/weights
  table                                          $DIR/report/table.md
  numbers                                        $DIR/report/metrics.json
  image grids and figures                        $DIR/report/figures
  the shipped encoder's first inversions         $GRID

TEXT
cat "$DIR/report/table.md"
