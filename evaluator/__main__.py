"""``python -m evaluator``."""

from evaluator.cli import cli

if __name__ == "__main__":
    cli(prog_name="evaluator")
