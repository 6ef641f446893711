#!/usr/bin/env bash
# Other people's MQTT clients from PyPI, for the tests, each with its own Python.
#
#   mqtt_clients.sh resolve   installs them once and prints their folder: paho/bin/python has Eclipse paho-mqtt, sparkplug/bin/python has
#                             pysparkplug, an edge node of Sparkplug B (which wants an older paho)
#
# Needs Python 3.9 or later with venv. MQTT_CLIENTS may name another folder.
set -euo pipefail

folder=${MQTT_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test/mqtt-clients}

make() { # NAME PACKAGE...
    local to=$folder/$1; shift
    [[ -f $to/.complete ]] && return
    rm -rf "$to"
    python3 -m venv "$to"
    "$to/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    touch "$to/.complete"
}

[[ ${1:-} == resolve ]] || { sed -n '2,8p' "${BASH_SOURCE[0]}"; exit 2; }
mkdir -p "$folder"
# Two test programs may do this at the same time.
exec 9>"$folder/.lock"
flock 9
make paho paho-mqtt==2.1.0
make sparkplug pysparkplug==0.6.1
echo "$folder"
