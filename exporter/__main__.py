"""``python -m exporter``."""

from exporter.cli import cli

if __name__ == "__main__":
    cli(prog_name="exporter")
