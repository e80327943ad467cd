#!/usr/bin/env bash
# Every test but the slow ones: first what can run side by side, then, alone, what judges times.
#   all.sh PYTHON [ARGUMENTS OF PYTEST]
# With arguments that choose tests, either half may have none of them; both having none is a failure.
set -euo pipefail
chosen=$(($# - 1))
cd "$(dirname "$0")/.."

python=$1
shift
none=5 # pytest's status where it found no test

side_by_side=0
# shellcheck disable=SC2086 # several words on purpose
"$python" -m pytest ${SIDE_BY_SIDE:-} -m "not slow and not alone" "$@" || side_by_side=$?
alone=0
if [ $# -eq 0 ]; then
    # All tests of the browser are marked so, by tests/conftest.py. To collect the others would take longer than some of these.
    mapfile -t marked < <(grep -rl --include='test_*.py' 'mark\.alone' tests)
    set -- "${marked[@]}" tests/browser
fi
"$python" -m pytest -m "alone and not slow" "$@" || alone=$?

if [ "$side_by_side" -eq "$none" ] && [ "$alone" -ne "$none" ] && [ "$chosen" -gt 0 ]; then side_by_side=0; fi
if [ "$alone" -eq "$none" ] && [ "$side_by_side" -eq 0 ] && [ "$chosen" -gt 0 ]; then alone=0; fi
[ "$side_by_side" -eq 0 ] || exit "$side_by_side"
exit "$alone"
