#!/usr/bin/env bash
# Every test but the slow ones: first what can run side by side, then what judges times. Beside all of it, with what it
# leaves of the processors, what looks at no clock.
#   all.sh PYTHON [ARGUMENTS OF PYTEST]
# Arguments may choose tests: then nothing runs in the background, and one of the two halves may have none of them.
# COMPILED=no: what there is of native code is taken as it is, and none is made.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
shift
unset PYTHONDONTWRITEBYTECODE # where it is set, each process of tests would read all of them anew
none=5 # pytest's status where it found no test

compile() {
    [ "${COMPILED:-yes}" = no ] || "$python" -m coordinator.compiling --if-possible
}

side_by_side() {
    # shellcheck disable=SC2086 # several words on purpose
    "$python" -m pytest ${SIDE_BY_SIDE:-} "$@"
}

if [ $# -gt 0 ]; then
    compile
    beside_others=0
    side_by_side -m "not slow and not alone" "$@" || beside_others=$?
    alone=0
    "$python" -m pytest -m "alone and not slow" "$@" || alone=$?
    if [ "$beside_others" -eq "$none" ]; then exit "$alone"; fi
    if [ "$alone" -eq "$none" ] || [ "$beside_others" -ne 0 ]; then exit "$beside_others"; fi
    exit "$alone"
fi

# --- what runs with what the processors have left -------------------------------------------------

said=$(mktemp -d)
beside=()
end() {
    for each in "${beside[@]}"; do kill -- "-$each" 2>/dev/null || true; done
    rm -rf "$said"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What is idle for Linux gives way at once to whatever wants to run of its session, and where Linux groups processes by
# sessions (the browser begins one), its group has to be of little weight, too.
leftover=(nice -n 19)
if chrt --idle 0 true 2>/dev/null; then leftover=(chrt --idle 0); fi
own_session=yes
if setsid true 2>/dev/null; then
    # shellcheck disable=SC2016 # for that shell
    leftover=(setsid "${leftover[@]}" bash -c 'echo 19 2>/dev/null >/proc/self/autogroup || true; exec "$@"' bash)
else
    own_session=no
fi

# Begin tests that look at no clock, a group of processes that can be ended as one.
#   in_the_background ARGUMENTS OF PYTEST
in_the_background() {
    local name=${#beside[@]}
    if [ "$own_session" = no ]; then set -m; fi
    # How long a test may take is there for those that hang; these wait for their turn.
    # shellcheck disable=SC2086 # several words on purpose
    "${leftover[@]}" "$python" -m pytest ${SIDE_BY_SIDE:-} -o "cache_dir=.pytest_cache/clockless$name" -o timeout=900 \
        -m "clockless and not slow" "$@" >"$said/$name" 2>&1 </dev/null &
    beside+=("$!")
    set +m
}

# --- all of them ----------------------------------------------------------------------------------

status=0
# To compile takes more than one processor only towards its end.
in_the_background --ignore tests/test_compiled.py
compile
# One more than there are cores, where one process each is meant: whoever starts servers waits for them half the time.
cores=$(getconf _NPROCESSORS_ONLN)
side_by_side ${SIDE_BY_SIDE:+-n "$(((cores < 8 ? cores : 8) + 1))"} -m "not slow and not alone and not clockless" ||
    status=$?
in_the_background tests/test_compiled.py
# To collect all the others would take longer than some of these.
mapfile -t marked < <(grep -rl --include='test_*.py' 'mark\.alone' tests)
"$python" -m pytest -m "alone and not slow" "${marked[@]}" || status=$?
# Two files at a time: the one test of a page that counts by time has three times the room that it needs.
side_by_side ${SIDE_BY_SIDE:+-n 2} -m "not slow" tests/browser || status=$?

for name in "${!beside[@]}"; do
    clockless=0
    wait "${beside[$name]}" || clockless=$?
    cat "$said/$name"
    if [ "$status" -eq 0 ]; then status=$clockless; fi
done
beside=()
exit "$status"
