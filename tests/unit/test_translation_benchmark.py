"""The translation benchmark takes parts of the command's place, which change more often than the slow tests run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from translate import Waiting, by_worker, draw, whole


def test_the_command_and_a_worker_translate_by_its_stand_in(tmp_path: Path) -> None:
    files = draw(tmp_path / "photos", 2, 32)
    whole(Waiting(), files, tmp_path / "painted", 2)
    by_worker(Waiting(), files, tmp_path / "by worker", 2)
    for folder in ("painted", "by worker"):
        assert sorted(file.name for file in (tmp_path / folder).glob("*.png")) == ["00000.png", "00001.png"]
