#!/usr/bin/env bash
# The long proofs, cut into slices so that they can be stopped and go on: a slice that passed leaves a file and is not run again.
#   prove.sh PYTHON STATE_DIRECTORY FIRST-LAST SLICE
# A proof is one call of `slices` at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1 state=$2 first=${3%-*} last=${3#*-} size=$4
mkdir -p "$state"
# What is proven is this code: other code starts anew.
code=$(cat $(git ls-files coordinator tests/simulation) | sha256sum | cut -c1-16)

slices() { # NAME MODULE [ARGUMENT...]: the module over all seeds, `--seeds A-B` at a time
    local name=$1 module=$2 from to done_file
    shift 2
    if [ ! -e "${module//.//}" ]; then
        echo "$name: there is no $module yet"
        return
    fi
    for ((from = first; from <= last; from += size)); do
        to=$((from + size - 1 < last ? from + size - 1 : last))
        done_file="$state/$name-$code-$from-$to.json"
        if [ -e "$done_file" ]; then continue; fi
        echo "$name: seeds $from to $to of $last"
        "$python" -m "$module" "$@" --seeds "$from-$to" --json >"$done_file.part"
        mv "$done_file.part" "$done_file"
    done
    echo "$name: seeds $first to $last hold for this code; results in $state"
}

slices raft tests.simulation --engine raft --jobs "$(getconf _NPROCESSORS_ONLN)"
