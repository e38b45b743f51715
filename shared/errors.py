"""One hierarchy of errors. Each says what happened, where, and what to do; each has its exit code.

Exit codes: 0 done or up to date, 1 a bug, 2 usage or config, 3 missing or corrupt input, 4 the environment lacks
something (GPU, TensorRT, package, disk space, permission), 5 the tool's own work failed, 6 a verification or quality
gate did not pass.
"""

from __future__ import annotations

from shared.answer import Answer
from shared.text import LONGEST_LINE, one_line


class DeployError(Exception):
    """Base of every error that a user can act on.

    Args:
        message: what happened, without a final full stop.
        where: the file, key, component or sample it happened in.
        hint: what to do about it.
        answer: what the command prints all the same.

    Attributes:
        stage, sample: in which it happened, noted where it passes through `shared.logs.about`.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, where: str | None = None, hint: str | None = None, answer: Answer | None = None
    ) -> None:
        self.message = message
        self.where = where
        self.hint = hint
        self.answer = answer
        self.stage: str | None = None
        self.sample: str | None = None
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}. {self.hint}" if self.hint else text

    def lines(self) -> list[str]:
        """The error as it is shown: lines without control characters, none too long."""
        line = one_line(str(self))
        if self.hint is None or line == str(self) or len(self.hint) > LONGEST_LINE // 2:
            return [line]
        # A long message must not cost what to do about it: the hint may be a command to copy.
        return [
            f"{one_line(str(self)[: -len(self.hint) - 1], LONGEST_LINE - len(self.hint) - 1)} {one_line(self.hint)}"
        ]


class UsageError(DeployError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ConfigError(DeployError):
    """A config file or override is wrong."""

    exit_code = 2


class InputError(DeployError):
    """An input file is missing, truncated or not what it should be."""

    exit_code = 3


class ManifestError(InputError):
    """The workspace, its manifest or one of its artifacts is missing, newer than this tool, or changed."""


class ModelLoadError(InputError):
    """A checkpoint or training config does not give the model that it should."""


class EnvironmentLacks(DeployError):
    """A package, GPU, driver, permission or disk space is missing."""

    exit_code = 4


class ExportError(DeployError):
    """PyTorch to ONNX failed, or the exported file does not compute what the model computes."""

    exit_code = 5


class TrainingError(DeployError):
    """Fine-tuning a quantized model failed."""

    exit_code = 5


class BuildError(DeployError):
    """ONNX to TensorRT failed."""

    exit_code = 5


class InferenceError(DeployError):
    """Running a backend failed."""

    exit_code = 5


class VerificationFailed(DeployError):
    """Backends disagree, or nothing could be compared."""

    exit_code = 6


class GateFailed(DeployError):
    """A quality gate of the config did not pass."""

    exit_code = 6
