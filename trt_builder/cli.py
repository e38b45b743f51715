"""The command line of trt_builder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from shared.answer import Answer
from shared.cli import (
    COUNT,
    COUNT_OR_ALL,
    EXISTING_FILE,
    FILE,
    FOLDER,
    SECONDS,
    Number,
    cluster_option,
    data_option,
    force_option,
    json_option,
    tool_group,
    trust_option,
    workspace_option,
)

Command = TypeVar("Command", bound=Callable[..., Any])

cli = tool_group("trt_builder", "ONNX to TensorRT: build, inspect and check engines.")

TARGETS = ("auto", "tensorrt", "rtx")
# Of commands that build as `build` does.
_target_option = click.option(
    "--target", type=click.Choice(TARGETS), default="auto", show_default=True, help="As for build."
)
_overrides_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As for build.")


@cli.command()
@workspace_option
@force_option
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="auto",
    show_default=True,
    help="What to build for. auto: TensorRT where it and a GPU are, else TensorRT for RTX where that is installed.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the workspace's config, for example --set tensorrt.precision_policy=fp16. Repeatable.",
)
@click.option(
    "--if-available",
    is_flag=True,
    help="Where TensorRT or a GPU is missing, record the stage as skipped, with the reason, and succeed.",
)
@click.option("--explain", is_flag=True, help="Build nothing; say what would be built, and why.")
@click.option(
    "--reproducible",
    "reproduce",
    type=click.Choice(["record", "verify"]),
    help="record: keep the choice of kernels. verify: build with that choice and prove that it was taken. "
    "TensorRT 10.9 and newer.",
)
@click.option("--timings", type=FOLDER, help="Folder that keeps kernel timings. [default: the workspace's]")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="POLICY",
    help="Build with this precision policy, as tensorrt.precision_policy. Repeatable: each has engines of its own.",
)
@cluster_option
@trust_option
def build(**options: Any) -> None:
    """Build the engines of every component in the workspace.

    With --cluster, engines are built side by side, each on a GPU of its own (docs/scale.md).

    Example: trt_builder build --work work/centerpoint --set tensorrt.precision_policy=fp16
    """
    from trt_builder.build import build_all
    from trt_builder.progress import leave_behind_builds

    try:
        build_all(**options)
    except KeyboardInterrupt as error:
        leave_behind_builds(error)
        raise


@cli.command()
@workspace_option
@_target_option
@_overrides_option
@trust_option
def refit(**options: Any) -> None:
    """Give engines that exist the weights of the ONNX files as they are now, without building them anew.

    The engines must have been built with tensorrt.refittable or tensorrt.strip_weights.

    Example: trt_builder refit --work work/centerpoint
    """
    from trt_builder.refit import refit_all

    refit_all(**options)


@cli.command()
@workspace_option
@click.option(
    "--percentile",
    type=Number(50, 100),
    default=100.0,
    show_default=True,
    help="Share of the samples, in percent, that must fit.",
)
@click.option(
    "--margin",
    type=Number(1, 4),
    default=1.1,
    show_default=True,
    help="Room above that, for scenes that the data set does not have.",
)
def suggest_profiles(work: Path, percentile: float, margin: float) -> None:
    """Profiles for the deploy config from the sizes (voxel counts) that the runs in the workspace recorded.

    Example: trt_builder suggest-profiles --work work/centerpoint --percentile 99.9
    """
    from shared.workspace import Workspace
    from trt_builder.suggest import sizes_in_runs, suggest

    ws = Workspace.open(work)
    run, sizes = sizes_in_runs(ws)
    text, notes = suggest(sizes, ws.spec(), percentile=percentile, margin=margin)
    click.echo(f"# from run {run}\n" + "".join(f"# {note}\n" for note in notes) + text, nl=False)


@cli.command()
@click.argument("engine", type=FILE)
@click.option("--compare", type=FILE, help="Another engine to compare it with.")
@click.option("--picture", type=FILE, help="Write the time per layer as an SVG.")
@json_option
def inspect(engine: Path, compare: Path | None, picture: Path | None) -> Answer:
    """Show an engine from inside: layers, precisions, times, memory, inputs.

    Example: trt_builder inspect work/centerpoint/tensorrt/TARGET/pts_voxel_encoder.engine --picture layers.svg
    """
    from shared.files import write_text
    from trt_builder import show

    record = show.record_of(engine)
    if picture is not None:
        write_text(picture, show.picture(record))
    if compare is None:
        return Answer("\n".join(show.table(record)), record)
    other = show.record_of(compare)
    return Answer("\n".join(show.comparison(record, other)), {"first": record, "second": other})


@cli.command()
@click.argument("engine", type=FILE, required=False)
@click.option("--work", type=FOLDER, envvar="WORK", help="Check its engines.")
@click.option("--tensorrt", "version", help="Check for this version instead of the installed one.")
@click.option("--arch", help="Check for this GPU architecture (sm89) instead of the one here.")
@json_option
def check(engine: Path | None, work: Path | None, version: str | None, arch: str | None) -> Answer:
    """Say whether engines will load, without loading them: no CUDA and no TensorRT needed.

    Example: trt_builder check --work work/centerpoint
    """
    from trt_builder.check import run_checks

    return run_checks(engine, work, version=version, architecture=arch)


def _choice_options(command: Command) -> Command:
    """How choices of precisions are measured: `trt_builder.choices.measure.Bench`."""
    for option in (
        workspace_option,
        click.option(
            "--backend",
            type=click.Choice(["tensorrt", "onnx"]),
            default="tensorrt",
            show_default=True,
            help="What is measured. onnx: ONNX Runtime stands for the engines, where there is no TensorRT.",
        ),
        click.option(
            "--device", default="cuda", show_default=True, help="cpu, cuda, cuda:N, or an alias of the config."
        ),
        click.option(
            "--num-samples",
            type=COUNT_OR_ALL,
            default=-1,
            show_default=True,
            help="Frames that the metric is measured on; -1: all of the data set.",
        ),
        click.option(
            "--seconds", type=SECONDS, default=5.0, show_default=True, help="Time each choice for at least so long."
        ),
        data_option,
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a key of the workspace's config, for example --set data.info_file=.... Repeatable.",
        ),
        cluster_option,
        click.option("--force", is_flag=True, help="Measure again what was measured."),
    ):
        command = option(command)
    return command


def _bench(work: Path, **options: Any) -> Any:
    from trt_builder.choices.measure import Bench
    from trt_builder.choices.source import Source

    return Bench(Source.open(work), **options)


@cli.command()
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="POLICY",
    default=("fp32_tf32", "fp16", "int8"),
    show_default=True,
    help="Measure this precision policy. Repeatable.",
)
@click.option(
    "--skip-from",
    "skip_lists",
    multiple=True,
    type=EXISTING_FILE,
    help="With the policy int8: leave the layers in floating point that this file lists (of `exporter quantize "
    "sensitivity` or `auto`, or a deploy config). Repeatable: a choice each. [default: none]",
)
@click.option("--no-metric", is_flag=True, help="Only time the choices.")
@_choice_options
@trust_option
@json_option
def sweep(policies: tuple[str, ...], skip_lists: tuple[Path, ...], no_metric: bool, **options: Any) -> Answer:
    """Measure choices of precisions: engines built and proven, timed, run over the data set, evaluated.

    Which precision to ship: latency against the task's metric, with intervals, and the choices that no other beats.
    Each choice has a workspace of its own under choices/; one that was measured is not measured again. Starts the
    commands of runtime and evaluator, which must be installed beside this tool.

    Example: trt_builder sweep --work work/centerpoint-int8 --skip-from configs/centerpoint_int8.yaml
    """
    from trt_builder.choices.sweep import sweep as measure_all

    return measure_all(_bench(**options), policies, skip_lists, metric=not no_metric)


@cli.command()
@click.option("--max-drop", type=Number(-1000, 1000), help="Points of the metric that may be lost against FP32.")
@click.option(
    "--min-snr",
    type=Number(-100, 200),
    help="Lowest signal to noise ratio that every output must keep against FP32 [dB]: where there are no labels.",
)
@click.option("--sure", is_flag=True, help="The whole 95 % interval of the drop must be within --max-drop.")
@click.option(
    "--keep-float",
    multiple=True,
    metavar="NAME|REGEX",
    help="Never put these into INT8: a layer, a block, or a regular expression. Repeatable.",
)
@click.option(
    "--tries", type=COUNT, default=16, show_default=True, help="Choices that are tried around the best one at most."
)
@_choice_options
@trust_option
@json_option
def tune(
    max_drop: float | None,
    min_snr: float | None,
    sure: bool,
    keep_float: tuple[str, ...],
    tries: int,
    **options: Any,
) -> Answer:
    """Find the fastest precisions that lose no more than is allowed: FP32, TF32, FP16, INT8, by component and block.

    Latency is that of the engines, the metric that of their runs, both measured; the ranking of `exporter quantize
    sensitivity` and estimates only order what is tried. Killed at any time, the same command goes on. Writes
    choices/tuned.yaml, a deploy config, and what `sweep` writes.

    Example: trt_builder tune --work work/centerpoint-tune --max-drop 0.25
    """
    from shared.errors import UsageError
    from trt_builder.choices.search import Limit
    from trt_builder.choices.tune import tune as search

    if max_drop is None and min_snr is None:
        raise UsageError("nothing says what may be lost", where="tune", hint="give --max-drop POINTS or --min-snr DB")
    if sure and max_drop is None:
        raise UsageError("--sure is about --max-drop", where="tune", hint="give both")
    return search(_bench(**options), Limit(max_drop, min_snr, sure), keep_float=keep_float, most=tries)


@cli.command()
@json_option
def doctor() -> Answer:
    """Show what this machine has for building engines, and what is missing.

    Example: trt_builder doctor
    """
    from shared.errors import EnvironmentLacks
    from trt_builder.doctor import can_build, examine

    findings = examine()
    marks = {True: "ok  ", False: "MISS", None: "    "}
    lines = [f"{marks[finding.good]} {finding.what:20} {finding.state}" for finding in findings]
    answer = Answer("\n".join(lines), [finding._asdict() for finding in findings])
    if not can_build(findings):
        hint = "the lines marked MISS say what is missing"
        raise EnvironmentLacks("no engines can be built here", hint=hint, answer=answer)
    return answer


@cli.command()
@click.option("--onnx", "model", type=EXISTING_FILE, help="The ONNX file.")
@click.option(
    "--inputs", type=EXISTING_FILE, help="An .npz of arrays by input name; the engine is built for their shapes."
)
@click.option("--outputs", type=FILE, help="The .npz to write: arrays by output name.")
@click.option(
    "--serve",
    is_flag=True,
    help="Stay, and take the three files from lines of JSON instead, until the standard input ends. TensorRT starts "
    "once then.",
)
@click.option("--precision-policy", "policy", default="fp32", show_default=True, help="As tensorrt.precision_policy.")
@click.option("--keep-fp32", multiple=True, metavar="PATTERN", help="Nodes that stay in FP32. Repeatable.")
@_target_option
@click.option("--timings", type=FOLDER, help="Folder that keeps kernel timings between calls. [default: not kept]")
@click.option("--no-libraries", is_flag=True, help="No kernels of cuBLAS and cuDNN, as tensorrt.tactic_sources: [].")
def probe(
    model: Path | None,
    inputs: Path | None,
    outputs: Path | None,
    serve: bool,
    policy: str,
    no_libraries: bool,
    **options: Any,
) -> None:
    """Build any ONNX file and run it once, outside a workspace: the runner of `verifier bisect`.

    With --serve a line is {"model": ..., "inputs": ..., "outputs": ...}, and is answered with {"exit_code": ...,
    "message": ...}.

    Example: trt_builder probe --onnx part.onnx --inputs in.npz --outputs out.npz --precision-policy fp16
    """
    from functools import partial

    from shared.errors import UsageError
    from trt_builder.policies import POLICIES
    from trt_builder.probe import probe as run_probe
    from trt_builder.probe_server import serve_standard_streams

    if policy not in POLICIES:
        raise UsageError(f"no policy '{policy}'", where="--precision-policy", hint=f"there are: {', '.join(POLICIES)}")
    run: Callable[..., None] = partial(run_probe, policy=policy, libraries=not no_libraries, **options)
    files = {"--onnx": model, "--inputs": inputs, "--outputs": outputs}
    missing = [name for name, path in files.items() if path is None]
    if serve and len(missing) < len(files):
        raise UsageError("--serve takes the files line by line", where="probe", hint=f"leave {', '.join(files)} out")
    if serve:
        serve_standard_streams(run)
        return
    if missing:
        raise UsageError(f"{missing[0]} is missing", where="probe", hint="give it, or --serve")
    run(*files.values())


@cli.command()
@workspace_option
@click.option("--out", type=FOLDER, required=True, help="Folder for a folder a case.")
@click.option("--component", metavar="NAME", help="The component. [default: each]")
@click.option("--bisected", is_flag=True, help="The nodes that `verifier bisect` found, not a build that fails.")
@_target_option
@_overrides_option
def reproduce(**options: Any) -> None:
    """Make what an issue at NVIDIA needs: the smallest graph that fails, its inputs, expected outputs, and commands.

    For a component whose build fails, the fewest consecutive nodes that fail with the same message. With --bisected,
    the nodes whose results were found to be wrong.

    Example: trt_builder reproduce --work work/centerpoint --out issue
    """
    from trt_builder.reproduce import reproduce as run_reproduce

    click.echo(run_reproduce(**options))
