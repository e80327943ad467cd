#!/bin/bash
# Installs what `make bench` compares Conclave with: Debian's servers, then the Python clients. What cannot be installed is
# said, and the comparison leaves it out. Usage: bench/setup.sh PYTHON
set -uo pipefail
python=$1

# package, the file by which it is known to be there, its service
servers=(
    "etcd-server /usr/bin/etcd etcd"
    "zookeeper /usr/share/java/zookeeper.jar zookeeper"
    "redis-server /usr/bin/redis-server redis-server"
)
updated=
for server in "${servers[@]}"; do
    read -r package file service <<<"$server"
    if [ -e "$file" ]; then
        echo "$package: is here"
    elif ! command -v apt-get >/dev/null; then
        echo "$package: left out, for there is no apt-get here; put $(basename "$file") in place yourself"
    elif [ "$(id -u)" != 0 ]; then
        echo "$package: left out, for only root may install it: sudo apt-get install --no-install-recommends $package"
    else
        if [ -z "$updated" ]; then
            apt-get update -qq || echo "apt-get update failed; going on with the lists that are here"
            updated=yes
        fi
        if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null; then
            # The comparison starts its own servers; one that idles beside them would only take time from all.
            if [ -d /run/systemd/system ]; then systemctl disable --now "$service" >/dev/null 2>&1 || true; fi
            echo "$package: installed"
        else
            echo "$package: left out, apt-get could not install it"
        fi
    fi
done

if "$python" -m pip install --disable-pip-version-check -q -r requirements-bench.txt; then
    echo "Python clients: installed"
else
    echo "Python clients: left out, pip could not install requirements-bench.txt"
fi
