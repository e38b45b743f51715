"""Command line of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from shared.answer import Answer
from shared.cli import (
    COUNT,
    COUNT_OR_ALL,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    INDEX,
    SECONDS,
    THREADS,
    cluster_option,
    data_option,
    device_option,
    force_option,
    json_option,
    tool_group,
    trust_option,
    workspace_option,
)
from shared.openmp import one_thread_for_matrices

# Commands import NumPy, which reads the environment then.
one_thread_for_matrices()

Command = TypeVar("Command", bound=Callable[..., Any])

cli = tool_group("runtime", "Run a backend over a data set, and measure it.")


_threads_option = click.option(
    "--threads", type=THREADS, help="Threads within an operation on the CPU. [default: the backend's]"
)


def _model_options(command: Command) -> Command:
    """What to run on what: the workspace, the backend, the device and how; see `runtime.model.open_model`."""
    for option in (
        trust_option,
        click.option(
            "--target",
            metavar="NAME",
            help="Set of engines: a folder under tensorrt/. [default: the one that fits the installed TensorRT]",
        ),
        _threads_option,
        data_option,
        device_option,
        click.option(
            "--backend",
            "backend_name",
            required=True,
            metavar="NAME",
            help="pytorch, onnx or tensorrt; `runtime backends` lists them.",
        ),
        workspace_option,
    ):
        command = option(command)
    return command


def _placement_options(command: Command) -> Command:
    """Where the pipeline's own steps run, and whether components are compiled."""
    for option in (
        click.option(
            "--compile", "compiled", is_flag=True, help="Compile the components for this machine first (PyTorch)."
        ),
        click.option(
            "--steps",
            type=click.Choice(["auto", "engines", "numpy"]),
            default="auto",
            show_default=True,
            help="Where the steps between the components run: on the GPU where backend and model can, or in NumPy. "
            "`engines` is `auto` without the kernels that take the place of a component.",
        ),
    ):
        command = option(command)
    return command


@cli.command("run")
@_model_options
@click.option(
    "--num-samples",
    type=COUNT_OR_ALL,
    help="How many samples, from the first; -1 for all. [default: the config's evaluation.num_samples]",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Run the Ith of N parts of the samples, for `manifest merge` to put together: 1/4 is the first of four.",
)
@click.option(
    "--readers",
    type=click.IntRange(0, 256),
    help="Processes that read samples ahead; 0: none. [default: by the device and the processors]",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 64),
    help="Requests under way at a time; with 1 each sample has a latency. [default: 2 on TensorRT from 240 samples on]",
)
@click.option(
    "--if-available",
    is_flag=True,
    help="Where the backend, its device or what it runs is missing, say so, and succeed without a run.",
)
@cluster_option
@_placement_options
@force_option
@json_option
def run_command(**options: Any) -> Answer:
    """Run a backend over the data set: predictions, raw outputs of the verification samples, latencies.

    Interrupted, it goes on at the first sample that is missing.

    With --cluster, workers on all GPUs and nodes of a Ray cluster share it (docs/scale.md). It is the same run.

    With --shard, machines or GPUs share a run: each writes to the same volume or to a copy of the workspace of its own.

    Example: runtime run --work work/centerpoint --backend onnx --num-samples 40
    """
    from runtime.run import run

    return run(**options)


@cli.command("bench")
@_model_options
@click.option("--sample", "sample_index", type=INDEX, help="Which sample. [default: the config's data.sample_idx]")
@click.option("--requests", "min_requests", type=COUNT, default=20, show_default=True, help="Measure at least so many.")
@click.option(
    "--seconds", "min_seconds", type=SECONDS, default=5.0, show_default=True, help="Measure at least so long."
)
@click.option(
    "--warm-up",
    "max_warm_up_seconds",
    type=SECONDS,
    default=60.0,
    show_default=True,
    help="Longest warm-up [s]; it ends as soon as the median is stable.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Measure in so many processes, one after another; `evaluator regress` finds changes of 5 % with 20.",
)
@click.option("--page-locked", is_flag=True, help="Hold the input in memory that the GPU fetches from by itself.")
@click.option(
    "--streams",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Measure the throughput with so many requests in flight too (GPU).",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 64),
    help="A request has so many samples, which the network takes at a time (YOLOX on a GPU).",
)
@click.option(
    "--like",
    type=click.Choice(["trtexec-10", "trtexec-11"]),
    help="Measure the bare engines too, as that trtexec does (TensorRT).",
)
@click.option("--profile", is_flag=True, help="Time every layer of the engines too, in a pass of its own (TensorRT).")
@click.option("--trace", is_flag=True, help="Write the stages as a Chrome trace.")
@click.option("--against", metavar="RUN", help="Earlier result to compare the total with, for example onnx-cpu.")
@_placement_options
@json_option
def bench_command(**options: Any) -> Answer:
    """Measure the latency of a model on one sample, stage by stage, after a warm-up.

    Percentiles are given where at least ten requests lie above them; the interval of the median is a 95 % bootstrap
    interval. On a GPU the total is measured without the events of the stages, which have requests of their own.

    Example: runtime bench --work work/centerpoint --backend tensorrt --device cuda --like trtexec-11 --streams 2
    """
    from runtime.bench import bench

    return bench(**options)


@cli.command("overlay")
@workspace_option
@click.option("--sample", "sample_index", type=INDEX, default=0, show_default=True, help="Which sample.")
@click.option("--out", type=FILE, required=True, help="The picture, .png or .jpg.")
@data_option
def overlay_command(**options: Any) -> None:
    """Draw what a calibration status model is shown: the points on the image, calibrated above, miscalibrated below.

    Example: runtime overlay --work work/calibration --sample 0 --out overlay.png
    """
    from runtime.models.calibration.overlay import overlay

    click.echo(overlay(**options))


@cli.command("messages")
@workspace_option
@click.option("--run", "run_name", metavar="RUN", required=True, help="Whose answers, for example onnx-cpu.")
@click.option("--out", type=FOLDER, required=True, help="The folder to write to.")
@click.option("--num-samples", type=COUNT_OR_ALL, default=-1, show_default=True, help="How many samples; -1 for all.")
def messages_command(**options: Any) -> None:
    """Write what Autoware's node publishes for a run's answers: the bytes of its messages, and messages.json.

    Example: runtime messages --work work/yolox-seg --run onnx-cpu --out messages
    """
    from runtime.messages import write_messages

    click.echo(write_messages(options.pop("work"), **options))


@cli.command("ranges")
@workspace_option
@click.option("--num-samples", type=COUNT_OR_ALL, help="How many samples. [default: verification.num_verify_samples]")
@data_option
@_threads_option
@force_option
@json_option
def ranges_command(**options: Any) -> Answer:
    """Record how large every tensor of the ONNX graphs gets: for `trt_builder build` in FP16 or INT8.

    Nodes whose values come near the end of FP16 stay in FP32 then. Runs in ONNX Runtime on the CPU.

    Example: runtime ranges --work work/centerpoint
    """
    from runtime.ranges import record_ranges

    return record_ranges(**options)


@cli.command("doctor-input")
@_model_options
@click.option(
    "--num-samples", type=COUNT_OR_ALL, default=16, show_default=True, help="How many samples, from the first; -1: all."
)
@json_option
def doctor_input_command(**options: Any) -> Answer:
    """Try other inputs that the network may have been trained on: RGB for BGR, 0-1 for 0-255, another mean.

    A wrong input is no error, but gives worse results, or none. Shows the metric that each input gives on labeled
    samples. `runtime run` does so on a few samples when a run's results collapse.

    Example: runtime doctor-input --work work/yolox-nano --backend onnx --num-samples -1
    """
    from runtime.doctor_input import doctor_input

    return doctor_input(**options)


@cli.command("trace")
@_model_options
@click.option("--num-samples", type=COUNT_OR_ALL, help="How many samples. [default: verification.num_verify_samples]")
@force_option
def trace_command(**options: Any) -> None:
    """Run a backend and keep what every step gives: for `runtime swap` and `verifier bisect`.

    The steps between the components run in NumPy. A 121 m frame takes some 10 MB on disk, compressed.

    Example: runtime trace --work work/centerpoint --backend pytorch
    """
    from runtime.trace import trace

    click.echo(trace(**options))


@cli.command("swap")
@_model_options
@click.option("--trace", "trace_name", required=True, metavar="NAME", help="The reference's trace, as in pytorch-cpu.")
@click.option(
    "--trace-work",
    type=EXISTING_FOLDER,
    help="The workspace that holds the trace. [default: the same]",
)
@force_option
def swap_command(**options: Any) -> None:
    """Run a backend from every step of a trace on, for `verifier attribute`: the trace's steps before, ours after.

    Example: runtime swap --work work/centerpoint --backend onnx --trace pytorch-cpu
    """
    from runtime.swap import swap

    click.echo(swap(**options))


@cli.command("backends")
def backends_command() -> None:
    """List the backends and the kinds of models that this installation knows.

    Example: runtime backends
    """
    from runtime.backends import available_backends
    from runtime.pipeline import available_pipelines

    click.echo(f"backends:  {', '.join(available_backends())}")
    click.echo(f"pipelines: {', '.join(available_pipelines())}")


if __name__ == "__main__":
    cli()
