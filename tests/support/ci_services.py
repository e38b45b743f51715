"""What GitHub and GitLab do with a job of our templates: a clone, the steps in their shells and environment, artifacts.

Only what the templates use is here, by the services' documentation; anything else in a template is an error.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
_TOKENS = re.compile(r"'[^']*'|&&|\|\||==|!=|!|[()]|[\w.-]+\(\)|[\w.-]+")
_OPERATORS = {"&&": " and ", "||": " or ", "!": " not ", "==": "==", "!=": "!=", "(": "(", ")": ")"}
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        code: exit code of the step that failed, or 0.
        log: what the steps printed.
        summary: what the page of the job shows (GitHub).
    """

    code: int
    log: str
    summary: str = ""


@dataclass
class Runner:
    """A machine that jobs run on: its clone is kept between them.

    Attributes:
        folder: where the repository is cloned to.
        remote: the repository.
        environment: variables of the machine.
        script: where scripts are put; None: beside the clone.
        session: the process that runs, the leader of its session.
    """

    folder: Path
    remote: Path
    environment: Mapping[str, str]
    script: Path | None = None
    session: int | None = None

    def checkout(self, clean: list[str] | None) -> None:
        """The newest commit; ``clean``: options of ``git clean``, None: nothing is removed."""
        if not (self.folder / ".git").exists():
            self.folder.mkdir(parents=True)
            self._git("init", "--quiet")
        self._git("fetch", "--quiet", "--depth", "1", str(self.remote), "HEAD")
        self._git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        if clean is not None:
            self._git("clean", "--quiet", *clean)

    def run(self, shell: list[str], script: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """A script in a shell, in the clone."""
        assert "${{" not in script
        file = self.script or self.folder.with_name("script")
        file.write_text(script)
        process = subprocess.Popen(
            [*shell, file], cwd=self.folder, env={**self.environment, **variables}, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.session = process.pid
        printed, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, printed)

    def kill(self) -> None:
        """End what runs, as when a job is cancelled or the machine goes down."""
        assert self.session is not None
        os.killpg(self.session, signal.SIGKILL)

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True)


@dataclass
class GitHub:
    """A run of a workflow.

    Attributes:
        vars: variables of the repository.
        event: name and fields of what started it.
        artifacts: folder that artifacts are kept in.
    """

    vars: Mapping[str, str]
    event: Mapping[str, Any]
    artifacts: Path
    caches: dict[str, Path] = field(default_factory=dict)

    def run(self, runner: Runner, job_name: str, **variables: str) -> Outcome | None:
        """A job on a machine that has ``variables`` besides; None: its condition is not met."""
        workflow = yaml.safe_load((runner.remote / ".github/workflows/deploy.yml").read_text())
        job = workflow["jobs"][job_name]
        contexts = self._contexts(workflow["name"])
        if not _value(job.get("if", "success()"), contexts):
            return None
        for values in (workflow.get("env", {}), job.get("env", {})):
            contexts["env"] |= {name: _expanded(value, contexts) for name, value in values.items()}
        page = self.artifacts / f"{job_name}.md"
        page.unlink(missing_ok=True)
        page.touch()
        environment = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page), **variables}
        outcome = Outcome(0, "")
        saved: dict[str, Path] = {}
        for step in job["steps"]:
            if outcome.code and not _value(step.get("if", "success()"), contexts | {"failed": True}):
                continue
            if "run" in step:
                # Without `shell`, it is a file for `bash -e`.
                answer = runner.run(["bash", "-e"], step["run"], contexts["env"] | environment)
                outcome.code, outcome.log = outcome.code or answer.returncode, outcome.log + answer.stdout
            else:
                given = {name: _expanded(value, contexts) for name, value in step.get("with", {}).items()}
                action = step["uses"].partition("@")[0].removeprefix("actions/")
                outputs = self._act(action, given, runner, saved)
                contexts["steps"][step.get("id", action)] = {"outputs": outputs}
        if not outcome.code:
            for key, path in saved.items():
                self.caches[key] = Path(shutil.copytree(path, self.artifacts / "caches" / key, symlinks=True))
        outcome.summary = page.read_text()
        return outcome

    def runs(self, repository: Path, job_name: str) -> bool:
        """Whether the condition of a job is met."""
        workflow = yaml.safe_load((repository / ".github/workflows/deploy.yml").read_text())
        return bool(_value(workflow["jobs"][job_name].get("if", "success()"), self._contexts(workflow["name"])))

    def _contexts(self, workflow: str) -> dict[str, Any]:
        github = {"workflow": workflow, "ref": "refs/heads/main", "repository": "me/model", **self.event}
        return {"vars": self.vars, "github": github, "inputs": {}, "runner": {"os": "Linux"}, "steps": {}, "env": {}}

    def _act(self, action: str, given: Mapping[str, str], runner: Runner, saved: dict[str, Path]) -> dict[str, str]:
        """What one of GitHub's own actions does; returns its outputs."""
        match action:
            case "checkout":
                runner.checkout(None if given.get("clean") == "False" else ["-ffdx"])
            case "setup-python":
                return {"python-version": platform.python_version()}
            case "cache":
                saved[given["key"]] = runner.folder / given["path"]
                if given["key"] in self.caches:
                    shutil.copytree(self.caches[given["key"]], saved.pop(given["key"]), symlinks=True)
            case "upload-artifact":
                _upload(self.artifacts / given["name"], runner.folder, given["path"].split())
            case "download-artifact":
                shutil.copytree(self.artifacts / given["name"], runner.folder / given["path"], dirs_exist_ok=True)
            case _:
                raise AssertionError(f"{action}: not known here")
        return {}


def _upload(to: Path, folder: Path, paths: list[str]) -> None:
    """As upload-artifact has it: hidden files stay, and the folder that all paths have in common is left out."""
    root = folder / paths[0] if len(paths) == 1 else (folder / paths[0]).parent
    shutil.rmtree(to, ignore_errors=True)
    for path in paths:
        source = folder / path
        shutil.copytree(source, to / source.relative_to(root), ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)


def _expanded(value: Any, contexts: Mapping[str, Any]) -> str:
    return _EXPRESSION.sub(lambda match: str(_value(match[1], contexts)), str(value))


def _value(expression: str, contexts: Mapping[str, Any]) -> Any:
    """Of an expression of GitHub's, with or without ``${{ }}``; what is not there is empty."""
    words = []
    for token in _TOKENS.findall(_EXPRESSION.sub(r"\1", expression)):
        if token in _OPERATORS:
            words.append(_OPERATORS[token])
        elif token.startswith("'"):
            words.append(token)
        elif token in ("success()", "cancelled()"):
            words.append(str(token == "success()" and "failed" not in contexts))
        else:
            found: Any = contexts
            for name in token.split("."):
                found = found.get(name, "") if isinstance(found, Mapping) else ""
            words.append(repr(found))
    return eval("".join(words).strip(), {"__builtins__": {}})  # of our own templates


@dataclass
class GitLab:
    """A pipeline.

    Attributes:
        variables: of the project, and those that GitLab sets.
        artifacts: folder that artifacts are kept in.
    """

    variables: Mapping[str, str]
    artifacts: Path

    def run(self, runner: Runner, job_name: str) -> Outcome | None:
        """A job; None: no rule of it is met."""
        pipeline = yaml.safe_load((runner.remote / ".gitlab-ci.yml").read_text())
        job = _extended(pipeline, job_name)
        # Those of the project count more than those of the file.
        given = {**pipeline["variables"], **job.get("variables", {}), **self.variables}
        variables = {
            name: _VARIABLE.sub(lambda match: given[match[1] or match[2]], value) for name, value in given.items()
        }
        variables |= {"CI": "true", "GITLAB_CI": "true", "CI_PROJECT_DIR": str(runner.folder), "CI_JOB_NAME": job_name}
        for rules in (pipeline["workflow"]["rules"], job.get("rules", [{"if": '"" == ""'}])):
            if not any(_holds(rule["if"], variables) for rule in rules):
                return None
        runner.checkout(variables.get("GIT_CLEAN_FLAGS", "-ffdx").split())
        for needed in job.get("needs", []):
            shutil.copytree(self.artifacts / needed, runner.folder, dirs_exist_ok=True)
        # All lines are one script, and a failing command ends it.
        answer = runner.run(["bash", "-e", "-o", "pipefail"], "\n".join(job["script"]), variables)
        after = runner.run(["bash"], "\n".join(job["after_script"]), variables)
        for path in job["artifacts"]["paths"]:
            source = runner.folder / path
            if source.exists():
                shutil.copytree(source, self.artifacts / job_name / path, dirs_exist_ok=True)
        reports = list(runner.folder.glob(job["artifacts"]["reports"]["junit"]))
        assert reports or answer.returncode not in (0, 6), "no report for the page of the merge request"
        return Outcome(answer.returncode, answer.stdout + after.stdout)


def _extended(pipeline: Mapping[str, Any], name: str) -> dict[str, Any]:
    job = pipeline[name]
    return _merged(_extended(pipeline, job["extends"]), job) if "extends" in job else dict(job)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As ``extends`` has it: maps are merged, all else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _holds(condition: str, variables: Mapping[str, str]) -> bool:
    """``$NAME == "text"`` or ``$NAME == $OTHER``."""
    left, right = (side.strip().strip('"') for side in condition.split("=="))
    values = [variables.get(side[1:]) if side.startswith("$") else side for side in (left, right)]
    return values[0] == values[1]
