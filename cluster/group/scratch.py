"""The storage folder that Ray Train requires, on the machine of its controller."""

import shutil
from pathlib import Path
from typing import Any

from cluster.machines.ray_internals import ControllerCallback


class RemovedAtEnd(ControllerCallback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_controller_finish(self, result: Any) -> None:
        self._remove()

    def before_controller_abort(self) -> None:
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
