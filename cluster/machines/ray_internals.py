"""Everything that the project uses of Ray's private modules, with the reason for each name.

`tests/unit/cluster/machines/test_ray_internals_of_train.py` lists what each of them must have, so that a Ray release which changes
one fails there first. Ray reads its settings when it is imported (see session.py): a driver imports this module after that.
"""

import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

# Ray replaces the handler of SIGTERM while it starts, see `signal_handlers_kept`; and a node that does not start leaves its
# processes to nobody, see `failed_start_ended`.
from ray._private import services, utils
from ray._private.node import Node

# What is free on each machine, by its id, without what is used up: the public API has that of the whole cluster alone.
from ray._private.state import available_resources_per_node as free_resources

# The only way to pass a few bytes from a worker to the driver without an actor, which would be one more process.
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

# What a trainer adds for Ray Data, which no run uses: a process more at every start and restart.
from ray.train.v2._internal.callbacks import DatasetsCallback

# To recognise hung workers, failures that a restart would not fix and machines that do not join, while the controller
# decides what to do: `ray.train.UserCallback` only receives exceptions and reports.
from ray.train.v2._internal.execution import callback_manager, context
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

# The controller has no other way to let its workers live in a placement group that is there already.
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    ResizingState,
    RestartingState,
    RunningState,
    SchedulingState,
)

# To resize a group once for machines that arrive together, see resize.py, and into what is free alone, see free_scaling.py.
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle

# The base class of `ray.train.torch.TorchTrainer`, which imports torch into the driver and into the controller.
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

__all__ = [
    "ControllerCallback",
    "ElasticScalingPolicy",
    "NoopDecision",
    "ReschedulingState",
    "ResizeDecision",
    "ResizingState",
    "RunningState",
    "WorkerGroupCallback",
    "free_resources",
]

KV_NAMESPACE = b"nla-cyclegan"
# The controller's states in which no worker runs.
WAITING_STATES = (InitializingState, SchedulingState, ReschedulingState, RestartingState)


class Trainer(DataParallelTrainer):
    """Ray Train's trainer; Ctrl-C stays the driver's.

    Args:
        scaling_policy: decides how many workers there are, in place of Ray's own; None: Ray's own.
    """

    def __init__(self, *arguments: Any, scaling_policy: ScalingPolicy | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._own_scaling_policy = scaling_policy

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        if self._own_scaling_policy is not None:
            settings["scaling_policy"] = self._own_scaling_policy
        settings["train_fn_ref"] = SentWithTheCall(settings["train_fn_ref"].get())
        return super()._initialize_and_run_controller(**settings)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Keep Python's handler: Ray's asks the controller to stop, which does not answer while it waits for machines."""

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback)]


class SentWithTheCall:
    """What a worker is to run, in place of Ray's reference to it in its object store: a worker that asks for that on a machine that is gone waits
    ten seconds before it asks another one."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def get(self) -> Callable[[], Any]:
        return self._function


class RemovedAtEnd(ControllerCallback):
    """Removes the storage folder that Ray Train requires, on the machine of its controller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_controller_finish(self, result: Any) -> None:
        self._remove()

    def before_controller_abort(self) -> None:
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class InCurrentGroup(ControllerCallback):
    """Places the workers in the placement group in which the controller's process is, such as the one that Tune has reserved for a trial.

    Ray Train would ask for another one, of which Tune knows nothing: trials would start without room for their workers.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        # In the controller's process, which has one run.
        TrainController.worker_group_cls = _WorkersInCurrentGroup


class _WorkersInCurrentGroup(WorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        return _Kept(ray.util.get_current_placement_group())


class _Kept(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """Whoever reserved the group removes it; workers that restart need it again."""


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """While Ray starts in this context, the handlers of Ctrl-C and SIGTERM stay what they are.

    Ray's own handler of SIGTERM ends the process, without a word to the program, or after draining its node for half a minute.
    """
    set_handler, before = utils.set_sigterm_handler, [(n, signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        if threading.current_thread() is threading.main_thread():
            for number, handler in before:
                signal.signal(number, handler)


@contextmanager
def failed_start_ended() -> Iterator[None]:
    """While in this context, a Ray that does not start ends its processes, of which `ray.shutdown` does not know yet."""
    start, start_process, started = Node.__init__, services.start_ray_process, list[Any]()

    def start_and_keep(*arguments: Any, **settings: Any) -> Any:
        started.append(start_process(*arguments, **settings))
        return started[-1]

    def start_or_end(node: Node, *arguments: Any, **settings: Any) -> None:
        try:
            start(node, *arguments, **settings)
        except BaseException:
            node.kill_all_processes(check_alive=False, allow_graceful=True)
            # The one that it was waiting for, such as its dashboard, is not yet among the node's: it would write on.
            for each in started:
                each.process.kill()
                each.process.wait()
            raise

    Node.__init__, services.start_ray_process = start_or_end, start_and_keep
    try:
        yield
    finally:
        Node.__init__, services.start_ray_process = start, start_process


def publish(key: str, record: dict[str, Any]) -> None:
    """Replace the value of a key in the store of the cluster's head. Costs one small message, no actor. Raises: RayError."""
    _internal_kv_put(key, json.dumps(record).encode(), namespace=KV_NAMESPACE)


def published(key: str) -> dict[str, Any] | None:
    """The value of a key, None before the first time. Raises: RayError."""
    value = _internal_kv_get(key, namespace=KV_NAMESPACE)
    return None if value is None else json.loads(value)


def group_has_failed(group: WorkerGroup) -> bool:
    """Whether a worker of the group had failed when the controller looked last."""
    status = group.get_latest_poll_status()
    return bool(status and status.errors)


def silence_callback_errors() -> None:
    """In the controller: do not log the traceback of an exception that a callback raises on purpose."""
    logging.getLogger(callback_manager.__name__).setLevel(logging.CRITICAL)


def silence_reports() -> None:
    """In a worker: do not log every `ray.train.report` at INFO; `LoggingConfig` does not reach this logger."""
    logging.getLogger(context.__file__).setLevel(logging.WARNING)


def working_dir_files(folders: Sequence[Path], excludes: list[str]) -> tuple[list[Path], int]:
    """The files that Ray would upload as a runtime environment, and the size in bytes that it refuses.

    Ray itself only says so after it has packed everything.
    """
    from ray._private.runtime_env import packaging

    paths: list[Path] = []
    for folder in folders:
        ignored = [packaging._get_excludes(folder, excludes)]
        packaging._dir_travel(folder, ignored, paths.append, include_gitignore=True)
    return [path for path in paths if os.path.isfile(path)], packaging.GCS_STORAGE_MAX_SIZE
