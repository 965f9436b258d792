"""Real Ray: a sweep whose object store is away for longer than anything waits for it."""

import time
from pathlib import Path

import pytest
from object_stores import ObjectStore
from test_sweep import EVERY, IMAGES, TIMEOUT_S, start, wait_until, write_sweep

from data_shards.storage.folder import RunFolder
from data_shards.storage.patience import PATIENCE_S
from tuning.analysis.results import read_results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

AWAY_S = PATIENCE_S + 40


def test_a_sweep_outlives_a_store_that_is_away_for_minutes(
    rclone: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone.use(monkeypatch)
    storage, _, options = rclone.make_bucket().uri("sweeps").partition("?")
    # rclone's server does not take a folder again that was emptied, as by the probe for a storage that can be written.
    RunFolder(f"{storage}?{options}", "another").write("file", b"")
    space = {"optimizer.lr": {"choice": [1e-3, 3e-3]}}
    file = write_sweep(tmp_path, f"{storage}?{options}", search="random", trials=2, space=space)
    sweep = start("sweep", "--config", file)

    def both_train() -> bool:
        try:
            images = [trial.images for trial in read_results(f"{storage}/few?{options}").trials]
        except ValueError:
            return False  # Not begun, or rclone's server, which does not replace files at once, is writing one.
        return len(images) == 2 and min(images) > 0

    wait_until(both_train, sweep)
    rclone.kill()
    time.sleep(AWAY_S)
    assert sweep.poll() is None
    rclone.start()
    out, err = sweep.communicate(timeout=TIMEOUT_S)
    assert sweep.returncode == 0, out + err
    trials = read_results(f"{storage}/few?{options}").trials
    assert [trial.state for trial in trials] == ["finished"] * 2
    for trial in trials:
        assert [each.images for each in trial.evaluations] == list(range(EVERY, IMAGES + 1, EVERY))
