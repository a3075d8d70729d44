#!/bin/sh
# Runs a study planned with `on_gpu` (planned.py) on a large GPU that is to be had for a quarter of an hour at a time, in commands
# of ten minutes:
#
#   results/gpu.sh pack FOLDER            here: .gpu/1 to .gpu/3 hold FOLDER/cifar100, .gpu/small its smaller data sets, and
#                                         .gpu/wheels the packages that may be missing there
#   results/gpu.sh run NAME [SECONDS]     there: trains for at most SECONDS (480), and stores in $OUT what it has learned
#   results/gpu.sh store NAME OUT         here: keeps that in .gpu/NAME for the next time; stores the record if the verdict stands
#
# With `run` travel .gpu/wheels, .gpu/NAME and the data: .gpu/small, or for CIFAR-100 .gpu/3, and before it, since what travels at
# once is limited, .gpu/1 and .gpu/2 with a command of their own (`true`). In OUT are NAME.json.gz (the record so far), status.json,
# and state.*: database and checkpoints, from which the next `run` resumes.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

pack() {
    rm -rf .gpu/[123] .gpu/small .gpu/wheels
    mkdir -p .gpu/1 .gpu/2 .gpu/3 .gpu/small .gpu/wheels
    cp "$1"/cifar100/train-0[0-4]* .gpu/1
    cp "$1"/cifar100/train-0[5-9]* .gpu/2
    cp "$1"/cifar100/test-* "$1"/cifar100/labels.npz "$1"/unpack.py .gpu/3
    cp -r "$1"/bccd .gpu/small/bccd
    cp -r "$1"/multi30k/raw .gpu/small/multi30k
    $python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
        --platform manylinux_2_28_x86_64 -d .gpu/wheels alembic annotated-types colorlog greenlet mako \
        "optuna>=5,<6" plotly pydantic pydantic-core sqlalchemy tomli-w \
        faster-coco-eval lightning-utilities torchmetrics colorama lxml portalocker regex sacrebleu sentencepiece tabulate
    du -sh .gpu/*
}

run() {
    name=$1 runs=runs/$1
    if [ -d .gpu/wheels ]; then
        $python -m pip install -q --no-index --no-deps --no-compile --upgrade --target .gpu/site .gpu/wheels/*.whl
        export PYTHONPATH="$PWD/.gpu/site"
    fi
    if [ -d .gpu/small ]; then
        mkdir -p data
        cp -r .gpu/small/. data
    fi
    if [ -d .gpu/3 ] && [ ! -e data/cifar100.npz ]; then
        mkdir -p .gpu/all/cifar100
        cp .gpu/[123]/*.webp .gpu/3/labels.npz .gpu/all/cifar100
        cp .gpu/3/unpack.py .gpu/all
        $python .gpu/all/unpack.py data cifar100
    fi
    mkdir -p "$runs"
    if [ ! -e "$runs/study.db" ] && [ -e ".gpu/$name/state.aa" ]; then
        cat ".gpu/$name"/state.* | tar -x -C "$runs"
    fi
    $python -m results "$name" --file > "$runs/study.toml"
    code=0
    $python -m ralr_tune run "$runs/study.toml" --devices "${DEVICES:-cuda:0}" --workers 1 --slots "${SLOTS:-8}" \
        --hours "$($python -c "print(${2:-480} / 3600)")" || code=$?
    $python -m ralr_tune status "$name" --json > "$OUT/status.json"
    $python -m ralr_tune export "$name" --record "$OUT/$name.json.gz"
    tar -c -C "$runs" --exclude ./report.html --exclude ./data . | split -b 15m - "$OUT/state."
    return $code
}

store() {
    mkdir -p ".gpu/$1"
    rm -f ".gpu/$1"/state.*
    cp "$2"/state.* ".gpu/$1"
    if grep -q '"stage": "done"' "$2/status.json"; then
        cp "$2/$1.json.gz" results
        $python -m results --page
    else
        echo "$1: no verdict yet; the next run resumes from .gpu/$1"
    fi
}

case ${1:-} in
    pack | run | store) "$@" ;;
    *) echo "usage: results/gpu.sh pack FOLDER | run NAME [SECONDS] | store NAME OUT" >&2; exit 2 ;;
esac
