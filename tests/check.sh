#!/usr/bin/env bash
# What every change must pass: format, lint, import contracts and unit tests; types beside all of these.
#   check.sh PYTHON [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
shift
unset PYTHONDONTWRITEBYTECODE # where it is set, each process of tests would read all of them anew

said=$(mktemp)
"$python" -m mypy >"$said" 2>&1 &
types=$!
trap 'kill "$types" 2>/dev/null || true; rm -f "$said"' EXIT

"$python" -m ruff format --check .
"$python" -m ruff check .
"$(dirname "$python")/lint-imports" --no-logo

tests=0
# shellcheck disable=SC2086 # several words on purpose
"$python" -m pytest ${SIDE_BY_SIDE:-} tests/unit -m "not slow and not long" "$@" || tests=$?
status=0
wait "$types" || status=$?
cat "$said"
[ "$tests" -eq 0 ] || exit "$tests"
exit "$status"
