#!/usr/bin/env bash
# Takes a workspace to a device, builds its engines there with a bundle, and brings back what was made.
#
#   bash examples/edge_device/there_and_back.sh WORKSPACE BUNDLE DEVICE
#
# DEVICE is a name for ssh, or a folder of this machine (with a / in it) to rehearse in. PYTHON is the device's (python3).
set -euo pipefail
work=${1%/} bundle=$2 device=$3
python=${PYTHON:-python3} name=$(basename "$work") tool=$(basename "$bundle")

on_device() {
    case $device in
        */*) mkdir -p "$device" && (cd "$device" && env -u PYTHONPATH bash -c "$1") ;;
        *) ssh "$device" "$1" ;;
    esac
}

tar -C "$(dirname "$work")" --exclude .versions -c "$name" | on_device "tar -x"
on_device "cat > ${tool@Q}" <"$bundle"
on_device "$python ${tool@Q} build --work ${name@Q} --if-available && $python ${tool@Q} manifest check --work ${name@Q}"

back=$(mktemp -d)
trap 'rm -r "$back"' EXIT
on_device "tar -c ${name@Q}" | tar -C "$back" -x
.venv/tools/bin/manifest merge --work "$work" "$back/$name"
