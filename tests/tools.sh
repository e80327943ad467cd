#!/usr/bin/env bash
# What some tests need and pip cannot bring: Chromium for the browser tests, `ip` for those that cut a network, PostgreSQL,
# a C compiler. Installed where that is allowed (root, apt-get); elsewhere a line says what will be skipped. With CI=true
# the tests fail instead.
set -euo pipefail

wanted=()
has() { command -v "$1" >/dev/null 2>&1; }
has chromium || has chromium-browser || has google-chrome || wanted+=(chromium fonts-dejavu-core)
has ip || wanted+=(iproute2)
has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || wanted+=(postgresql-common postgresql)
has gcc || has cc || wanted+=(gcc libc6-dev)
# Of a Python that is not the system's, the headers came with it.
python=.venv/bin/python
if [ -x $python ] && ! [ -e "$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then
    wanted+=("python$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev")
fi
[ ${#wanted[@]} -eq 0 ] && exit 0

missing=("${wanted[@]}")
if [ "$(id -u)" -eq 0 ] && has apt-get; then
    echo "installing ${wanted[*]} for the tests"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null || true
    missing=()
    for package in "${wanted[@]}"; do # one that there is not keeps the others out no more
        if [ "$package" = postgresql ]; then # else the machine would have a server of its own from then on
            sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf || true
        fi
        apt-get install -y -qq --no-install-recommends "$package" </dev/null >/dev/null || missing+=("$package")
    done
fi
[ ${#missing[@]} -eq 0 ] && exit 0
echo "not installed: ${missing[*]}. Tests that need them are skipped$([ "${CI:-}" = true ] && echo ', which is a failure with CI=true')." >&2
