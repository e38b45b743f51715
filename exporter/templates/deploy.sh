#!/bin/sh
# This model's deployment, stage by stage: sh ci/deploy.sh STAGE...
#
#   setup   the tools: a checkout of awml-deploy with its virtual environments, or with DOCKER_TARGET its images
#   cpu     inspect export run verify evaluate regress summary
#   gpu     take build run_engines verify evaluate regress summary: after cpu, in a workspace of its own
#   tune    on a GPU, for a config that quantizes: the fastest precisions that lose no more than DEPLOY_MAX_DROP
#
# It ends as the first tool that did not end well: with 6 where a check, a gate or the baseline did not pass, and then the
# other verdicts and the summary have come all the same. Killed, the same command goes on where it was.
#
# Written by `exporter config init --ci`, and yours to change. The environment has the last word:
set -eu

config=${DEPLOY_CONFIG:-@CONFIG@}
name=${DEPLOY_NAME:-@NAME@} # the workspace is work/NAME, on a GPU work/NAME-gpu
data=${DATA_ROOT:-@DATA@} # of the config: a workspace that comes from another machine names its place there
gate=${DEPLOY_GATE:-'@METRIC@ drop > 0.5%'} # what fails it, against PyTorch; more gates: docs/results.md
baseline=${DEPLOY_BASELINE:-baselines/@NAME@.json} # of `evaluator baseline export`; without it nothing is compared
max_drop=${DEPLOY_MAX_DROP:-0.25} # points of the metric
home=${AWML_DEPLOY:-.awml-deploy} # a checkout; `setup` brings it to REF of URL, where there is a URL
url=${AWML_DEPLOY_URL:-}
ref=${AWML_DEPLOY_REF:-@REF@}
target=${DOCKER_TARGET:-} # of images, as in x86-trt10.8 (docs/targets.md); else TensorRT is here

[ -z "$data" ] || export DATA_ROOT="$data"
exporter=$home/.venv/exporter/bin/exporter
work=work/$name
results=work/results/$name

# SERVICE ARGUMENT...: a tool, or its image, in which paths are the same.
tool() {
    service=$1
    shift
    if [ -z "$target" ]; then
        "$home/.venv/tools/bin/${service%%-*}" "$@"
    else
        AWML_UID=$(id -u) AWML_GID=$(id -g) TARGET=$target GPU=${GPU:-nvidia} WORK=$PWD/work \
            DATA=$(cd "${data:-.}" && pwd) docker compose --file "$home/compose.yaml" run --rm -T \
            --volume "$PWD:$PWD:ro" --volume "$PWD/work:$PWD/work" --workdir "$PWD" "$service" "$@"
    fi
}

# SECTION KEY: what the deploy config says.
key() {
    section=$("$exporter" config show --config "$config" --section "$1")
    echo "$section" | sed -n "s/^  $2: *//p"
}

# WORKSPACE: the model, in INT8 where the config says so.
export_model() {
    enabled=$(key quantization enabled)
    if [ "$enabled" = true ]; then
        "$exporter" quantize "$(key quantization mode)" --config "$config" --work "$1"
    fi
    "$exporter" export --config "$config" --work "$1"
}

# STAGE...: those that must end well, one after the other; then what judges, whatever the verdicts are.
job() {
    rm -rf "$results" # of an earlier job, where the folder is kept
    status=0 rest="verify evaluate regress summary"
    for stage; do
        sh "$0" "$stage" || { status=$? rest=summary && break; }
    done
    [ -e "$work/manifest.json" ] || return "$status"
    for stage in $rest; do
        sh "$0" "$stage" || { code=$? && [ "$status" != 0 ] || status=$code; }
    done
    return "$status"
}

run_stage() {
    case $1 in
    setup)
        if [ -n "$url" ]; then
            git init --quiet "$home"
            git -C "$home" fetch --quiet --depth 1 "$url" "$ref"
            git -C "$home" checkout --quiet --detach FETCH_HEAD
        fi
        if [ -n "$target" ]; then
            make -C "$home" images TARGET="$target" IMAGES="trt_builder runtime-tensorrt verifier evaluator"
        else
            make -C "$home" setup
        fi
        ;;
    cpu)
        job inspect export run
        ;;
    gpu)
        export DEPLOY_FROM="$work" DEPLOY_NAME="$name-gpu"
        work=work/$DEPLOY_NAME results=work/results/$DEPLOY_NAME
        job take build run_engines
        ;;
    tune)
        [ -z "$target" ] || { echo "a search needs all tools together: without DOCKER_TARGET" >&2 && return 2; }
        export_model "$work-tune"
        tool trt_builder tune --work "$work-tune" --max-drop "$max_drop" --device cuda
        ;;
    inspect)
        model=$(key model config)
        checkpoint=$(key model checkpoint)
        "$exporter" inspect "$model" --checkpoint "$checkpoint"
        ;;
    export)
        export_model "$work"
        ;;
    run)
        tool runtime run --work "$work" --backend pytorch
        tool runtime run --work "$work" --backend onnx
        ;;
    take)
        # What the other machine made takes the place of what was made of an earlier model; engines that still fit stay.
        if [ -e "$work/manifest.json" ]; then
            tool manifest merge --work "$work" --prefer theirs "$DEPLOY_FROM"
        else
            mkdir -p "$work"
            cp -R "$DEPLOY_FROM/." "$work"
        fi
        ;;
    build)
        tool trt_builder build --work "$work"
        ;;
    run_engines)
        tool runtime-tensorrt run --work "$work" --backend tensorrt --device cuda
        ;;
    verify)
        tool verifier verify --work "$work" --junit "$results/verify.xml"
        ;;
    evaluate)
        tool evaluator evaluate --work "$work" --fail-if "$gate" --junit "$results/gates.xml"
        ;;
    regress)
        if [ -e "$baseline" ]; then
            tool evaluator regress --work "$work" --baseline "$baseline" --junit "$results/regress.xml"
        else
            echo "no $baseline to compare with: evaluator baseline export" >&2
        fi
        ;;
    summary)
        tool evaluator report --work "$work"
        mkdir -p "$results"
        tool evaluator summary --work "$work" --format markdown >"$results/summary.md"
        [ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$results/summary.md" >>"$GITHUB_STEP_SUMMARY"
        ;;
    *)
        echo "$0: there is no stage '$1'" >&2
        return 2
        ;;
    esac
}

[ $# != 0 ] || { sed -n '2,9s/^# *//p' "$0" && exit 2; }
for stage; do
    echo "== $stage of $name" >&2
    run_stage "$stage"
done
