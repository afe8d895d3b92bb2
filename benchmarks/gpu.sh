#!/bin/sh
# Training speed on one GPU, in under eight minutes: indexlm beside plain transformers.
#
#     sh benchmarks/gpu.sh                     # benchmarks/results/gpu.json
#     sh benchmarks/gpu.sh --out more.json --points 1b/indexlm_compiled,1b/hf_layers_compiled
#     sh benchmarks/gpu.sh --list              # what there is to measure
#
# Needs no network and no installed indexlm: a Python 3.11 or newer (PYTHON=..., else python3) with
# torch of 2.10 or newer, numpy and pydantic 2; transformers for its rows alone. Where pydantic is
# missing, put its wheels into the folder WHEELS (else .wheels), made where there is a network by
#
#     pip download pydantic --dest .wheels --only-binary=:all: \
#         --python-version 3.12 --platform manylinux2014_x86_64
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=${WHEELS:-.wheels}
export PYTHONPATH="src:.${PYTHONPATH:+:$PYTHONPATH}"
has() {
    "$python" -c "import sys, importlib.util as u; sys.exit(u.find_spec('$1') is None)"
}
for package in torch numpy; do
    if ! has "$package"; then
        echo "$python has no $package: name a Python that has it, PYTHON=/path/to/python" >&2
        exit 2
    fi
done
if ! has pydantic; then
    if ! ls "$wheels"/pydantic-*.whl >/dev/null 2>&1; then
        echo "$python has no pydantic and $wheels holds no wheel of it: install it, or see the" \
            "head of benchmarks/gpu.sh for how to bring it along" >&2
        exit 2
    fi
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    PYTHONPATH= "$python" -m pip install --quiet --no-index --find-links "$wheels" --target "$unpacked" pydantic
    export PYTHONPATH="$PYTHONPATH:$unpacked"
fi
"$python" -m benchmarks.gpu "$@"
