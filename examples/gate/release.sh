#!/usr/bin/env bash
# Saves a model as version NAME of its workspace if it passes every gate; else says why not, with the tool's exit code.
#
#   bash examples/gate/release.sh WORKSPACE NAME GATE ...
set -euo pipefail
work=$1 name=$2
shift 2
tools=.venv/tools/bin

status=0
"$tools/evaluator" evaluate --work "$work" "${@/#/--fail-if=}" >"$work.evaluation.txt" 2>&1 || status=$?
if [ "$status" = 0 ]; then
    "$tools/manifest" tag --work "$work" "$name" --note "passed: $*"
else
    echo "$name is not released"
    grep '^error: ' "$work.evaluation.txt"
fi
exit "$status"
