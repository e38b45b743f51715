"""``python -m trt_builder``."""

from trt_builder.cli import cli

if __name__ == "__main__":
    cli(prog_name="trt_builder")
