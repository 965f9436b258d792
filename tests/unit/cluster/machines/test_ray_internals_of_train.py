"""What cluster/machines/ray_internals.py needs of Ray's private API: an upgrade of Ray that changes it fails here first."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.runtime_env import packaging
from ray.experimental import internal_kv
from ray.train.v2._internal.execution import callback_manager, context
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import TrainControllerState
from ray.train.v2._internal.execution.worker_group import placement_group_handle
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

from cluster.machines import forks, ray_internals, session
from cluster.settings.workers.capacity import Machine


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (internal_kv._internal_kv_put, ["key", "value", "overwrite", "namespace"]),
        (internal_kv._internal_kv_get, ["key", "namespace"]),
        (ray_internals.DataParallelTrainer._register_sigint_handler, ["self", "controller"]),
        (ray_internals.WorkerGroupCallback.after_worker_group_start, ["self", "worker_group"]),
        (ray_internals.WorkerGroupCallback.before_worker_group_shutdown, ["self", "worker_group"]),
        (ray_internals.WorkerGroupCallback.after_worker_group_poll_status, ["self", "worker_group_status"]),
        (ray_internals.ControllerCallback.after_controller_state_update, ["self", "previous_state", "current_state"]),
        (
            ray_internals.ControllerCallback.before_controller_execute_resize_decision,
            ["self", "resize_decision"],
        ),
        (ray_internals.ControllerCallback.after_controller_start, ["self", "train_run_context"]),
        (ray_internals.ControllerCallback.after_controller_finish, ["self", "result"]),
        (ray_internals.WorkerGroupCallback.before_worker_group_start, ["self", "worker_group_context"]),
        (
            ray_internals.ElasticScalingPolicy.make_decision_for_running_worker_group,
            ["self", "worker_group_state", "worker_group_status"],
        ),
        (ray_internals.WorkerGroup.poll_status, ["self", "timeout"]),
        (ray_internals.utils.set_sigterm_handler, ["sigterm_handler"]),
        (ray_internals.Node.kill_all_processes, ["self", "check_alive", "allow_graceful", "wait"]),
        (ray_internals.WorkerGroup.get_workers, ["self"]),
        (ray_internals.WorkerGroup.execute_async, ["self", "fn", "fn_args", "fn_kwargs"]),
        (WorkerGroupPollStatus.get_worker_group_error, ["self"]),
        (ray_internals.WorkerGroup._create_placement_group, ["self", "scaling_config", "worker_group_context"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_functions_take_what_they_are_given(function: Any, expected: list[str]) -> None:
    assert parameters(function) == expected


def test_a_trainer_takes_a_backend_and_registers_its_handler_of_ctrl_c_by_that_name() -> None:
    init = parameters(ray_internals.DataParallelTrainer.__init__)
    assert {"train_loop_config", "backend_config", "scaling_config", "run_config"} <= set(init)
    source = inspect.getsource(ray_internals.DataParallelTrainer._initialize_and_run_controller)
    assert "self._register_sigint_handler(controller)" in source


def test_the_controller_asks_the_trainers_own_policy() -> None:
    trainer, given = ray_internals.DataParallelTrainer, parameters(TrainController.__init__)
    assert "scaling_policy" in given
    assert "self._initialize_and_run_controller(" in inspect.getsource(trainer.fit)
    assert "scaling_policy=create_scaling_policy(" in inspect.getsource(trainer.fit)
    assert "_latest_monitor_time" in inspect.getsource(ray_internals.ElasticScalingPolicy)


def test_ray_sets_its_handler_of_sigterm_by_that_name() -> None:
    """Neither of them has a copy of the function."""
    for source in (inspect.getsource(ray._private.worker), inspect.getsource(ray._private.node)):
        assert "ray._private.utils.set_sigterm_handler(" in source


def test_a_healthy_group_comes_to_its_resize_by_one_state_and_a_failed_one_by_another() -> None:
    source = inspect.getsource(TrainController)
    assert source.index("isinstance(controller_state, ResizingState)") < source.index("next_state=SchedulingState(")
    assert not issubclass(ray_internals.ResizingState, ray_internals.WAITING_STATES)


def test_a_worker_asks_what_it_is_given_for_its_function() -> None:
    assert "train_fn = train_fn_ref.get()" in inspect.getsource(RayTrainWorker.run_train_fn)
    assert "train_fn_ref=train_fn_ref" in inspect.getsource(ray_internals.DataParallelTrainer.fit)
    assert ray_internals.SentWithTheCall(print).get() is print


def test_a_group_whose_workers_have_failed_is_known() -> None:
    """Its processes are ended at once: rendezvous.py."""
    statuses = [None, WorkerStatus(running=True), WorkerStatus(running=False, error=RuntimeError("lost"))]
    groups = [SimpleNamespace(get_latest_poll_status=lambda s=s: s and WorkerGroupPollStatus({0: s})) for s in statuses]
    assert [ray_internals.group_has_failed(group) for group in groups] == [False, False, True]
    assert parameters(ray_internals.WorkerGroup.get_latest_poll_status) == ["self"]


def test_no_process_is_started_for_ray_data() -> None:
    """Workers start without what it would have given them."""
    trainer = ray_internals.Trainer(print, scaling_config=ray.train.ScalingConfig(num_workers=1))
    assert not any(isinstance(each, ray_internals.DatasetsCallback) for each in trainer._create_default_callbacks())
    assert any(
        isinstance(each, ray_internals.DatasetsCallback)
        for each in ray_internals.DataParallelTrainer._create_default_callbacks(trainer)
    )
    given = inspect.signature(RayTrainWorker.init_train_context).parameters["dataset_shard_provider"]
    assert given.default is None


def test_the_first_job_of_a_ray_is_known_before_it_starts() -> None:
    """Ray's library reads both when it is imported: forks.py."""
    assert ray.JobID.from_int(1).hex() == forks.FIRST_JOB
    library = Path(ray._raylet.__file__).read_bytes()
    assert b"RAY_JOB_ID" in library
    assert b"RAY_RAYLET_PID" in library


def test_the_status_of_a_group_has_the_errors_of_its_workers() -> None:
    error = RuntimeError("lost")
    statuses = {0: WorkerStatus(running=True), 1: WorkerStatus(running=False, error=error)}
    status = WorkerGroupPollStatus(statuses)
    assert status.errors == {1: error}
    assert status.get_worker_group_error().worker_failures == {1: error}


def test_the_states_without_workers_are_states_of_the_controller() -> None:
    assert all(issubclass(state, TrainControllerState) for state in ray_internals.WAITING_STATES)


def test_the_loggers_are_those_that_ray_uses() -> None:
    assert "logging.getLogger(__name__)" in inspect.getsource(callback_manager)
    assert "logging.getLogger(__file__)" in inspect.getsource(context)


def test_the_workers_of_a_trial_live_in_its_placement_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainController, "worker_group_cls", TrainController.worker_group_cls)
    assert "self.worker_group_cls.create(" in inspect.getsource(TrainController)
    assert "self._create_placement_group(" in inspect.getsource(ray_internals.WorkerGroup._start_impl)
    ray_internals.InCurrentGroup().after_controller_start(None)
    group = TrainController.worker_group_cls.__new__(TrainController.worker_group_cls)
    monkeypatch.setattr(ray.util, "get_current_placement_group", lambda: "the trial's")
    removed: list[object] = []
    monkeypatch.setattr(placement_group_handle, "remove_placement_group", removed.append)
    handle = group._create_placement_group(None, None)
    handle.shutdown()
    assert (handle.placement_group, removed) == ("the trial's", [])


def test_what_is_free_is_known_of_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parameters(ray_internals.free_resources) == []
    nodes = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}},
        {"NodeID": "b", "Alive": True, "Resources": {"CPU": 8.0}},
        {"NodeID": "c", "Alive": False, "Resources": {"CPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_internals, "free_resources", lambda: {"a": {"GPU": 0.5}})
    assert session.cluster_machines() == [Machine(0, 0.5, busy_cpus=4, busy_gpus=1.5), Machine(8)]


def test_packaging_has_what_tells_the_size_of_an_upload() -> None:
    assert parameters(packaging._get_excludes) == ["path", "excludes"]
    assert {"path", "excludes", "handler", "include_gitignore"} <= set(parameters(packaging._dir_travel))
    assert packaging.GCS_STORAGE_MAX_SIZE > 0


def test_a_version_of_ray_that_was_not_tested_is_warned_of() -> None:
    assert session.untested_version("2.60.1") is None
    assert session.untested_version(ray.__version__) is None
    assert session.untested_version("3.0.0") == "Ray 3.0.0 has not been tested with this project; tested: 2.59, 2.60"
