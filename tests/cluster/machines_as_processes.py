"""A cloud for Ray's autoscaler whose machines are processes of this one; loaded by the autoscaler."""

from typing import Any

from ray._private import ray_constants
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Machines(FakeMultiNodeProvider):
    """Gives each machine a folder of its own for the code of jobs: one that joins would delete what the others work in."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME = f"code_{self._next_node_id}"
        super()._create_node_with_resources_and_labels(*arguments)
