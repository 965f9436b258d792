"""A sweep's folder where a run's is expected: the error says which folder to name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import copy_run, remove, status
from cluster.inspection.recorded_run import read_run
from data_shards.errors import UserError
from data_shards.storage import locate
from nla_cyclegan.weights.generators import load_generator
from nla_cyclegan.weights.references import NEWEST, select


@pytest.mark.parametrize(
    "use",
    [
        lambda sweep: remove.main([sweep, "--yes"]), lambda sweep: copy_run.main([sweep, f"{sweep}-copy"]), read_run,
        lambda sweep: select(locate(sweep), NEWEST), lambda sweep: load_generator(sweep),
    ],
)  # fmt: skip
def test_a_trial_is_to_be_named(tmp_path: Path, use: Callable[[str], object]) -> None:
    sweep = tmp_path / "placement"
    (sweep / "trial-0000").mkdir(parents=True)
    (sweep / "sweep.json").write_text("{}")
    with pytest.raises(
        UserError, match=re.escape(f"; it is a sweep: name one of its trials, such as {sweep}/trial-0000")
    ):
        use(str(sweep))
    assert [entry.name for entry in tmp_path.iterdir()] == ["placement"]
    with pytest.raises(UserError, match=re.escape(f"no run at {tmp_path}: neither")) as caught:
        status.main([str(tmp_path)])
    assert str(caught.value).endswith(f"; {sweep} is a sweep, give that")
