#!/usr/bin/env bash
# The long proofs, cut into steps so that they can be stopped and go on: a step that passed leaves a file and is not run again.
#   prove.sh PYTHON STATE_DIRECTORY FIRST-LAST SLICE
# At the end what was found is written into docs/proof.md.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1 first=${3%-*} last=${3#*-} size=$4

sum_of() { # DIRECTORY...: of all sources in them. An archive of them is no clone, and git looks into nobody else's
    local names
    names=$(git ls-files "$@" 2>/dev/null) || names=
    if [ -z "$names" ]; then names=$(find "$@" -type f ! -path '*/__pycache__/*' | LC_ALL=C sort); fi
    tr '\n' '\0' <<<"$names" | xargs -0 cat | sha256sum | cut -c1-16
}

# What is proven is this code: other code starts anew.
code=$(sum_of coordinator tests/simulation tests/linearizability tests/integration)
state=$2/$code
mkdir -p "$state"

step() { # NAME COMMAND...: run it once; what it prints is kept
    local name=$1
    shift
    if [ -e "$state/$name" ]; then return; fi
    echo "prove: $name"
    "$@" >"$state/$name.part" || { tail -n 40 "$state/$name.part"; echo "prove: $name failed" >&2; exit 1; }
    mv "$state/$name.part" "$state/$name"
}

caught() { # MUTANT: it exits with status 1, and names the checker, where it was caught
    local status=0
    "$python" -m tests.simulation --engine raft --mutant "$1" 2>/dev/null || status=$?
    [ "$status" -eq 1 ]
}

# Each is a run of one process.
export -f step caught
export python state
"$python" -m tests.simulation --list-mutants | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I '{}' \
    bash -euo pipefail -c 'step "mutant-{}" caught "{}"'
# Where the replicas' side is compiled, every other slice is run by that program: both come to the same with the same seeds
# (tests/test_compiled.py).
is_built=$("$python" -c 'from coordinator import compiled; print(bool(compiled.modules_of(compiled.BUILDS / compiled.digest())))')
seeds() { # WORKLOAD PREFIX FIRST LAST: a slice a step
    local from to program
    for ((from = $3; from <= $4; from += size)); do
        to=$((from + size - 1 < $4 ? from + size - 1 : $4))
        program=never
        if [ "$is_built" = True ] && [ $((from / size % 2)) -eq 1 ]; then program=always; fi
        CONCLAVE_COMPILED=$program step "seeds-$2$from-$to.json" "$python" -m tests.simulation --engine raft --workload "$1" --seeds "$from-$to" --json \
            --jobs "$(getconf _NPROCESSORS_ONLN)"
    done
}
# All that the state machine does, which is the default of the command line; and a quarter as many of keys and locks alone.
seeds mixed mixed- "$first" "$last"
seeds plain "" "$first" $((first + (last - first + 1) / 4 - 1))
units=$(sum_of tests/unit)
step "random-mutants-$units" "$python" -m tests.simulation --engine raft --random-mutants 200 --jobs "$(getconf _NPROCESSORS_ONLN)"
PROVE_KILLS=20 PROVE_FLOOD_S=30 step kills \
    "$python" -m pytest -q -s tests/integration/test_quorum.py tests/integration/test_garbage.py
PROVE_KILLS=200 PROVE_KILLS_STATE="$state/torture.rounds" step torture \
    "$python" -m pytest -q -s tests/integration/test_torture.py
step slow "$python" -m pytest -q -m slow

"$python" -m tests.proof "$state" >docs/proof.md
echo "prove: everything holds for this code; the figures are in docs/proof.md"
