"""The driver's side of the workers: who there is, who does what, and what became of it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from shared import provenance
from shared.cluster.process import Attempt, Setting, Site, Worker, inspect
from shared.errors import DeployError, EnvironmentLacks, InferenceError
from shared.lazy import lazy_import
from shared.progress import progress
from shared.temporaries import temporary
from shared.work_path import WorkPath

ray = lazy_import("ray", install="make setup-cluster")
exceptions = lazy_import("ray.exceptions", install="make setup-cluster")
strategies = lazy_import("ray.util.scheduling_strategies", install="make setup-cluster")

_log = logging.getLogger("cluster")

Task = TypeVar("Task")
Result = TypeVar("Result")

#: What loads a worker, in its process; it returns what is called with every task. Ray sends both by name: functions of
#: modules, or `functools.partial` of such.
Make = Callable[[], Callable[[Task], Result]]

#: A task whose process died so often is the reason for it.
MOST_DEATHS = 3

# Exit codes of errors after which a process is not trusted with another task: a bug, or a backend that failed.
_DOUBTFUL = (DeployError.exit_code, InferenceError.exit_code)

_SECONDS_TO_INSPECT = 60.0
_SECONDS_BETWEEN_LOOKS = 2.0
# A cluster that starts its nodes anew, as Kubernetes does, needs about so long.
_SECONDS_WITHOUT_NODES = 60.0
_SECONDS_TO_WAIT = 1.0


@dataclass(frozen=True)
class Need:
    """What a worker takes of a node, and what every node must have.

    Attributes:
        gpu: a GPU for itself, which it sees as the first; otherwise a processor.
        module: the tool's package, whose code must be the same everywhere.
        folders: must be the same and writable everywhere: the shared volume.
        check: called on every node before any work; raises a `DeployError` about what is missing there.
    """

    gpu: bool
    module: str
    folders: Sequence[Path] = ()
    check: Callable[[], None] | None = None


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What became of a task.

    Attributes:
        task: which.
        node: name of the machine.
        value: what it returned; None where there is an error.
        error: why it did not end.
        died: its process did, or the node.
        deaths: how often, this time included.
        node_key: Ray's name for the machine.
    """

    task: Task
    node: str
    value: Result | None = None
    error: DeployError | None = None
    died: bool = False
    deaths: int = 0
    node_key: str = ""


class Connection(Protocol):
    """What workers ask of the cluster; see `shared.cluster.connection.Cluster`."""

    most_workers: int | None
    is_here: bool

    def heard(self) -> None:
        """The cluster has answered."""

    def require_head(self) -> None:
        """Raise EnvironmentLacks where the head is gone."""


@dataclass
class _Node:
    """A node.

    Attributes:
        key: Ray's name for it.
        name: of the machine, for the user.
        slots: workers that it has room for.
        late: it joined after the work began.
        free: numbers of the places where no worker is.
        failed_starts: workers that died before they were ready, in a row.
    """

    key: str
    name: str
    slots: int
    late: bool
    free: list[int]
    failed_starts: int = 0

    @property
    def taken(self) -> int:
        """How many workers it has."""
        return self.slots - len(self.free)


@dataclass(eq=False)
class _Hand:
    """A worker process, in a place of its node."""

    node: _Node
    place: int
    actor: Any


@dataclass(frozen=True)
class _Call(Generic[Task]):
    """What a worker is doing: a task, or None while it loads."""

    hand: _Hand
    task: Task | None = None
    deaths: int = 0


class Workers(Generic[Task, Result]):
    """Workers on the nodes of a cluster, and the tasks that they are given."""

    def __init__(self, cluster: Connection, make: Make[Task, Result], need: Need) -> None:
        self._cluster = cluster
        self._make = make
        self._need = need
        self._nodes: dict[str, _Node] = {}
        self._inspected: dict[str, tuple[_Node, Any, float]] = {}
        self._given_up: dict[str, DeployError] = {}
        self._marked = contextlib.ExitStack()
        self._marks: dict[Path, str] = {}
        self._waiting: deque[tuple[Task, int]] = deque()
        self._free: list[_Hand] = []
        self._calls: dict[Any, _Call[Task]] = {}
        self._looked = 0.0
        self._told: set[str] = set()
        self._had_nodes = time.monotonic()

    @property
    def count(self) -> int:
        """How many workers there are, those included that still load; at least 1."""
        return max(1, self._hired())

    @property
    def at_work(self) -> str:
        """How many work, for a line of progress: ``3 of 4 GPUs at work``."""
        busy = sum(call.task is not None for call in self._calls.values())
        return f"{busy} of {self._hired()} {'GPUs' if self._need.gpu else 'workers'} at work"

    def give(self, task: Task, deaths: int = 0) -> None:
        """Have a task done by whoever is free; `outcomes` says how it ended.

        Args:
            task: what the work is called with.
            deaths: how often its process has died before.
        """
        self._waiting.append((task, deaths))

    def refuse(self, outcome: Outcome[Task, Result], lack: EnvironmentLacks) -> None:
        """Have a task done again, and its node not used any more: what it left is not where it should be.

        Args:
            outcome: of the task.
            lack: what the node lacks.
        """
        self._give_up(outcome.node_key, lack)
        self.give(outcome.task, outcome.deaths)

    def outcomes(self, more: Callable[[], Task | None] = lambda: None) -> Iterator[Outcome[Task, Result]]:
        """What becomes of the tasks, as they end; ends with the last. Further ones may be given meanwhile.

        Args:
            more: asked for a task when a worker is free and none waits; None: there is none now.

        Raises:
            DeployError: a node that was here from the start can't load what the tasks need.
            EnvironmentLacks: no node is left, or the cluster is gone.
        """
        while True:
            self._enlist()
            self._feed(more)
            if not self._waiting and not any(call.task is not None for call in self._calls.values()):
                if (task := more()) is None:
                    return
                self.give(task)
            self._require_nodes()
            done = self._wait()
            for reference in done:
                outcome = self._ended(self._calls.pop(reference), reference)
                # Before the caller sees it, who takes its time.
                self._feed(more)
                if outcome is not None:
                    yield outcome

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        """Do tasks side by side; one whose process dies is done again, until it has died `MOST_DEATHS` times.

        Yields:
            What became of each task, in the order in which they end.

        Raises:
            DeployError, EnvironmentLacks: see `outcomes`.
        """
        for task in tasks:
            self.give(task)
        for outcome in self.outcomes():
            if outcome.died and outcome.deaths < MOST_DEATHS:
                _log.warning("%s; it is done again", outcome.error)
                self.give(outcome.task, outcome.deaths)
            else:
                yield outcome

    def results(self, tasks: Sequence[Task], title: str, name: Callable[[Task], str]) -> Iterator[tuple[Task, Result]]:
        """What tasks return, with a bar; those that fail don't keep the others from being done.

        Args:
            tasks: what to do.
            title: of the bar.
            name: of a task, for its error.

        Yields:
            Task and result, in the order in which they end.

        Raises:
            DeployError: tasks failed; the first one's error with its name, after all others are done.
            EnvironmentLacks: see `outcomes`.
        """
        failed: list[tuple[Task, DeployError]] = []
        with progress(title, len(tasks)) as advance:
            for outcome in self.run(tasks):
                if outcome.error is not None:
                    failed.append((outcome.task, outcome.error))
                    _log.warning("%s failed: %s", name(outcome.task), outcome.error)
                else:
                    yield outcome.task, cast(Result, outcome.value)
                advance(1, self.at_work)
        if failed:
            task, error = failed[0]
            others = f" ({len(failed)} of {len(tasks)} failed)" if len(failed) > 1 else ""
            where = name(task) if (error.where or "") in name(task) else f"{name(task)}: {error.where}"
            raised = type(error)(f"{error.message}{others}", where=where, hint=error.hint)
            raised.exit_code = error.exit_code
            raise raised

    def enlist_all(self) -> None:
        """Look at every node, and have workers loaded on it.

        Raises:
            DeployError: a node lacks something.
            EnvironmentLacks: none has a GPU, or a processor.
        """
        for folder in self._need.folders:
            mark = self._marked.enter_context(temporary(WorkPath(folder.absolute(), "cluster")))
            mark.open_file("xb").close()
            self._marks[folder.absolute()] = mark.relative
        self._look(late=False)
        for lack in self._judge(_SECONDS_TO_INSPECT).values():
            raise lack
        self._hire()
        if not self._nodes:
            what = "a GPU" if self._need.gpu else "a processor"
            raise EnvironmentLacks(f"no node of the cluster has {what} for us", hint="see `ray status`")

    def dismiss(self) -> None:
        """End the workers; those of a head that is gone end by themselves."""
        self._marked.close()
        hands = [*self._free, *(call.hand for call in self._calls.values())]
        with contextlib.suppress(EnvironmentLacks):
            self._patiently(lambda: [ray.kill(hand.actor) for hand in hands])

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _enlist(self) -> None:
        """Take in the nodes that are new, and fill places of workers that died; now and then."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._look(late=True)
        for key, lack in self._judge().items():
            self._give_up(key, lack)
        self._hire()

    def _look(self, *, late: bool) -> None:
        """See which nodes there are, and have the new ones inspected."""
        self._looked = time.monotonic()
        alive = {node["NodeID"]: node for node in self._patiently(ray.nodes) if node["Alive"]}
        for gone in self._nodes.keys() - alive.keys():
            del self._nodes[gone]
        for key in alive.keys() - self._nodes.keys() - self._given_up.keys() - self._inspected.keys():
            slots = self._slots(alive[key]["Resources"])
            if slots:
                node = _Node(key, alive[key]["NodeManagerHostname"], slots, late, list(range(slots)))
                if self._cluster.is_here:
                    self._nodes[key] = node
                else:
                    self._inspected[key] = (node, self._inspect(key), time.monotonic() + _SECONDS_TO_INSPECT)

    def _slots(self, resources: dict[str, float]) -> int:
        return int(resources.get("GPU" if self._need.gpu else "CPU", 0))

    def _is_wanted(self) -> bool:
        most = self._cluster.most_workers
        return most is None or self._hired() < most

    def _hired(self) -> int:
        return sum(node.taken for node in self._nodes.values())

    def _patiently(self, question: Callable[[], Any]) -> Any:
        """What the head answers; Ray would wait for one that is gone for a minute, and end this process then."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=lambda: answers.put(question()), name="ask-head", daemon=True).start()
        while True:
            with contextlib.suppress(queue.Empty):
                answer = answers.get(timeout=_SECONDS_TO_WAIT)
                self._cluster.heard()
                return answer
            self._cluster.require_head()

    def _inspect(self, key: str) -> Any:
        """Have a node looked at, in a process that ends then: a check may start what workers start anew, as CUDA."""
        code = provenance.code_digest("shared", self._need.module)
        site = Site(self._need.module, code, self._marks, Path.cwd(), self._need.check)
        there = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(inspect)
        return there.options(scheduling_strategy=_on(key)).remote(site)

    def _judge(self, seconds: float = 0.0) -> dict[str, DeployError]:
        """Take in nodes that are fit; what others lack, by their ids.

        Args:
            seconds: to wait for those that have not answered.
        """
        references = {reference: key for key, (_, reference, _) in self._inspected.items()}
        if not references:
            return {}
        done, silent = ray.wait(list(references), num_returns=len(references), timeout=seconds)
        lacks: dict[str, DeployError] = {}
        for key in (references[reference] for reference in done):
            node, reference, _ = self._inspected.pop(key)
            try:
                attempt: Attempt = ray.get(reference)
            except (exceptions.NodeDiedError, exceptions.TaskUnschedulableError):
                continue  # it is looked at again, if it still is a node then
            except exceptions.RayError as error:
                hint = "install the same version on all nodes"
                reason = f"can't run our code ({_first_line(error)})"
                lacks[key] = EnvironmentLacks(reason, where=f"node {node.name}", hint=hint)
                continue
            if attempt.error is None:
                self._nodes[key] = node
            else:
                lacks[key] = _named(attempt.error, node.name)
        for key in (references[reference] for reference in silent):
            node, _, deadline = self._inspected[key]
            if time.monotonic() > deadline:
                del self._inspected[key]
                lacks[key] = EnvironmentLacks("does not answer", where=f"node {node.name}", hint="see `ray status`")
        return lacks

    def _hire(self) -> None:
        """Have workers loaded where there is a place."""
        for key, node in self._nodes.items():
            while node.free and self._is_wanted():
                self._load(key, node)

    def _load(self, key: str, node: _Node) -> None:
        place = node.free.pop(0)
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if self._need.gpu else {"num_cpus": 1}
        actor = ray.remote(Worker).options(scheduling_strategy=_on(key), **options).remote()
        setting = Setting(place, node.slots, Path.cwd())
        self._calls[actor.open.remote(self._make, setting)] = _Call(_Hand(node, place, actor))

    def _give_up(self, key: str, lack: DeployError) -> None:
        """Don't use a node any more. Who works there ends the task that it has."""
        if key not in self._given_up:
            _log.warning("a node is not used: %s", lack)
        self._given_up[key] = lack
        self._nodes.pop(key, None)
        for hand in [hand for hand in self._free if hand.node.key == key]:
            self._free.remove(hand)
            self._dismiss(hand)

    def _require_nodes(self) -> None:
        """Raise the reason when nobody is left to work."""
        if self._nodes or self._calls:
            self._had_nodes = time.monotonic()
        elif self._given_up:
            raise list(self._given_up.values())[-1]
        elif time.monotonic() - self._had_nodes > _SECONDS_WITHOUT_NODES:
            raise EnvironmentLacks(
                "no node of the cluster is left", hint="see `ray status`; the command can be repeated"
            )

    # -- tasks --------------------------------------------------------------------------------------------------------

    def _wait(self) -> list[Any]:
        """The calls that ended, after a second at most."""
        done: list[Any] = []
        if self._calls:
            done, _ = ray.wait(list(self._calls), num_returns=1, timeout=_SECONDS_TO_WAIT)
        else:
            time.sleep(_SECONDS_TO_WAIT)
        if not done:
            self._cluster.require_head()
        return done

    def _feed(self, more: Callable[[], Task | None]) -> None:
        """Give tasks to those that are free."""
        while self._free and (task := self._next(more)) is not None:
            self._begin(self._free.pop(0), *task)

    def _next(self, more: Callable[[], Task | None]) -> tuple[Task, int] | None:
        if self._waiting:
            return self._waiting.popleft()
        task = more()
        return None if task is None else (task, 0)

    def _begin(self, hand: _Hand, task: Task, deaths: int) -> None:
        self._calls[hand.actor.do.remote(task)] = _Call(hand, task, deaths)

    def _ended(self, call: _Call[Task], reference: Any) -> Outcome[Task, Result] | None:
        """What became of a call; None where that is nobody's business but ours."""
        hand, node = call.hand, call.hand.node
        try:
            attempt: Attempt = ray.get(reference)
        except exceptions.RayError as error:
            return self._died(call, error)
        self._cluster.heard()
        for line in attempt.warnings:
            # Every worker says what it thinks of the same model and data: once is enough.
            if line not in self._told:
                self._told.add(line)
                _log.warning("%s: %s", node.name, line)
        if attempt.error is not None and (call.task is None or isinstance(attempt.error, EnvironmentLacks)):
            lack = _named(attempt.error, node.name)
            if call.task is None and not node.late:
                raise lack
            self._unfit(call, lack)
            return None
        node.failed_starts = 0
        doubtful = attempt.error is not None and attempt.error.exit_code in _DOUBTFUL
        if doubtful or node.key in self._given_up:
            self._dismiss(hand)
        else:
            self._free.append(hand)
        if call.task is None:
            return None
        return Outcome(call.task, node.name, attempt.value, attempt.error, deaths=call.deaths, node_key=node.key)

    def _unfit(self, call: _Call[Task], lack: DeployError) -> None:
        """A node lacks something for a task, or for the loading."""
        if call.task is not None:
            self._waiting.appendleft((call.task, call.deaths))
        self._dismiss(call.hand)
        self._give_up(call.hand.node.key, lack)

    def _dismiss(self, hand: _Hand) -> None:
        """End a worker; another one may take its place."""
        ray.kill(hand.actor)
        hand.node.free.append(hand.place)

    def _died(self, call: _Call[Task], error: Exception) -> Outcome[Task, Result] | None:
        """A process is gone: with its node, killed, out of memory, or by its task."""
        node = call.hand.node
        node.free.append(call.hand.place)
        reason = InferenceError(f"a process on {node.name} died ({_first_line(error)})")
        if call.task is not None:
            deaths = call.deaths + 1
            return Outcome(call.task, node.name, error=reason, died=True, deaths=deaths, node_key=node.key)
        node.failed_starts += 1
        if node.failed_starts >= MOST_DEATHS:
            self._give_up(node.key, reason)
        return None


def _on(node: str) -> Any:
    """To be scheduled on a node and no other."""
    return strategies.NodeAffinitySchedulingStrategy(node, soft=False)


def _named(error: DeployError, node: str) -> DeployError:
    """The error with the node that it happened on."""
    where = f"node {node}" if error.where is None else f"node {node}: {error.where}"
    return type(error)(error.message, where=where, hint=error.hint)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
