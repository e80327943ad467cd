#!/usr/bin/env bash
# Every test but the slow ones: first what can run side by side, then, alone, what judges times. Beside that, with what it
# leaves of the processors, what looks at no clock.
#   all.sh PYTHON [ARGUMENTS OF PYTEST]
# With arguments that choose tests, some of the three may have none of them; all having none is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
shift
none=5 # pytest's status where it found no test

# What is idle for Linux gives way at once to whatever else wants to run.
leftover=(nice -n 19)
if chrt --idle 0 true 2>/dev/null; then leftover=(chrt --idle 0); fi

side_by_side=0
# shellcheck disable=SC2086 # several words on purpose
"$python" -m pytest ${SIDE_BY_SIDE:-} -m "not slow and not alone and not clockless" "$@" || side_by_side=$?

said=$(mktemp)
# How long a test may take is there for those that hang; these wait for their turn.
"${leftover[@]}" "$python" -m pytest -p no:cacheprovider -o timeout=900 -m "clockless and not slow" "$@" >"$said" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null || true; rm -f "$said"' EXIT
alone=0
if [ $# -eq 0 ]; then
    # All tests of the browser are marked so, by tests/conftest.py. To collect the others would take longer than some of these.
    mapfile -t marked < <(grep -rl --include='test_*.py' 'mark\.alone' tests)
    set -- "${marked[@]}" tests/browser
fi
"$python" -m pytest -m "alone and not slow" "$@" || alone=$?
clockless=0
wait "$beside" || clockless=$?
cat "$said"

status=$none
for each in "$side_by_side" "$alone" "$clockless"; do
    if [ "$each" -eq "$none" ]; then continue; fi
    if [ "$status" -eq "$none" ] || [ "$status" -eq 0 ]; then status=$each; fi
done
exit "$status"
