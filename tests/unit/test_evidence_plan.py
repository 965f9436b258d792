"""The stages of the evidence, from runs that are made up: each follows from those before it, and none is wanted twice."""

import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("scipy")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import evidence_turns
from evidence import Limits
from evidence_cells import ADAM, CELLS, EVALUATIONS, NADAM, PILOT_SEEDS, PRIMARY, SIZES, Wanted
from evidence_plan import CLAIMS, Plan, open_runs, seeds_for_all
from evidence_report import claims_table, deviations_table
from evidence_state import Done, State
from paired import verdicts

SEEDS = {"most_seeds": 30, "descriptive_seeds": 2}


def finished(wanted: Wanted, score: float, *, diverged: bool = False) -> Done:
    measured = [{"score": score + 0.01 * (EVALUATIONS - 1 - k)} for k in range(EVALUATIONS)]
    content = {"structure": 0.5, "texture": 0.4}
    return Done(
        wanted.cell, wanted.rate, wanted.seed, 20, 2.5, 1.0, "CPU", list(range(EVALUATIONS)), measured, content, diverged
    )  # fmt: skip


def score_of(wanted: Wanted, spread: float = 0.02) -> float:
    """Nadam loses 0.2 at the highest rate, and otherwise 0.1 of its score against Adam; NLA changes nothing."""
    random = np.random.default_rng((wanted.seed, zlib.crc32(wanted.cell.encode())))
    optimizer = CELLS[wanted.cell].optimizer
    return (
        1 + spread * random.standard_normal() + (0 if optimizer == ADAM else -0.1) + (0.2 if wanted.rate > 3e-4 else 0)
    )


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path, {"size": "tiny"})


def complete(state: State, stage: str) -> Plan:
    """Make what that stage misses."""
    name, missing = Plan.of(state, **SEEDS).next(state)
    assert name == stage
    for wanted in missing:
        state.add(finished(wanted, score_of(wanted)))
    return Plan.of(state, **SEEDS)


def test_each_stage_follows_from_the_one_before(state: State) -> None:
    plan = Plan.of(state, **SEEDS)
    assert [len(runs) for runs in plan.stages.values()] == [18, 0, 0, 0]
    assert open_runs(plan, state)[1] == "pilot: open, it follows from the stage before"
    plan = complete(state, "rates")
    assert set(plan.rates.values()) <= {1e-4, 2e-4}, "the worst is not chosen"
    missing = state.missing(plan.stages["pilot"])
    # The runs that chose a rate are the pilot's first seed.
    assert len(plan.stages["pilot"]) == 12
    assert len(missing) == 8
    assert plan.needed is None
    plan = complete(state, "pilot")
    assert plan.needed is not None
    assert plan.seeds == list(range(plan.needed))
    assert {run.seed for run in plan.stages["pilot"]}.isdisjoint(plan.seeds)
    assert len(state.missing(plan.stages["test"])) == len(PRIMARY) * plan.needed
    first = plan.needed
    plan = complete(state, "test")
    # The limit of more seeds is nearer to the truth; there may be more of them by it, never fewer.
    assert {each.n for each in plan.extended.values()} == {len(PILOT_SEEDS) + first}
    assert plan.needed == max(first, seeds_for_all(plan.extended.values()))
    while plan.next(state)[0] == "test":
        plan = complete(state, "test")
    plan = complete(state, "descriptive")
    assert plan.next(state) == ("", [])
    assert open_runs(plan, state) == []
    found = [claim.differences(state, plan.rates, plan.seeds) for claim in CLAIMS]
    assert [each.word for each in verdicts(found, 0.05, plan.needed)] == ["holds", "no difference"]


def test_the_seeds_that_the_pilot_asks_for_ask_for_more_where_they_spread_wider(state: State) -> None:
    """Three seeds of a pilot that happen to agree: n of 80 % power follows from the seeds of the test, too."""
    spreads = {"rates": 0.002, "pilot": 0.002, "test": 0.03}
    planned = []
    while (stage := Plan.of(state, **SEEDS).next(state))[0] in spreads:
        name, missing = stage
        for wanted in missing:
            state.add(finished(wanted, score_of(wanted, spreads[name])))
        plan = Plan.of(state, **SEEDS)
        planned.append(plan.needed)
    assert planned[:2] == [None, seeds_for_all(plan.pilot.values())]
    assert planned[1] < planned[2] == plan.needed == len(plan.seeds), "decided once more, then kept"
    assert (
        plan.extended["Nadam is better than Adam"].deviation_limit
        > 2 * plan.pilot["Nadam is better than Adam"].deviation_limit
    )
    tables = deviations_table(plan, state)
    assert f"| pilot and the first seeds of the test, {3 + planned[1]} |" in tables
    assert f"| test, {plan.needed} seeds |" in tables


def test_fewer_seeds_than_the_second_look_asks_for_have_no_verdict(state: State) -> None:
    complete(state, "rates")
    first = complete(state, "pilot").needed
    for wanted in Plan.of(state, **SEEDS).next(state)[1]:
        state.add(finished(wanted, score_of(wanted, 0.05)))
    plan = Plan.of(state, most_seeds=first, descriptive_seeds=1)
    assert plan.needed > first == len(plan.seeds)
    table = claims_table(plan, state, SimpleNamespace(size=SIZES["tiny"], epoch=8))
    assert table.count(f"| {first} of {plan.needed} |") == table.count("**too few seeds**") == len(CLAIMS)


def test_a_pilot_whose_runs_diverged_gives_no_verdict(state: State) -> None:
    complete(state, "rates")
    for wanted in Plan.of(state, **SEEDS).next(state)[1]:
        state.add(finished(wanted, 1.0, diverged=True))
    plan = Plan.of(state, most_seeds=2, descriptive_seeds=1)
    assert plan.needed is None
    assert plan.seeds == [0, 1]
    table = claims_table(plan, state, SimpleNamespace(size=SIZES["tiny"], epoch=8))
    assert table.count("open: the pilot's runs diverged") == len(CLAIMS)
    assert deviations_table(plan, state).count(" | open" * 5) == len(CLAIMS)


def test_more_seeds_than_are_allowed_are_said_to_be_missing(state: State) -> None:
    complete(state, "rates")
    complete(state, "pilot")
    plan = Plan.of(state, most_seeds=2, descriptive_seeds=1)
    assert plan.seeds == [0, 1]
    assert (
        open_runs(plan, state)[-1]
        == f"test: {plan.needed - 2} of the {plan.needed} seeds that 80 % power needs (--most-seeds)"
    )


def test_a_run_that_diverged_is_never_the_best_rate_and_its_seed_says_nothing(state: State) -> None:
    for wanted in Plan.of(state, **SEEDS).next(state)[1]:
        bad = wanted.rate == 1e-4 and wanted.cell == f"CycleGAN, {NADAM}"
        state.add(finished(wanted, 0.1 if wanted.rate == 1e-4 else 1.0 + wanted.rate, diverged=bad))
    plan = Plan.of(state, **SEEDS)
    assert (plan.rates[ADAM], plan.rates[NADAM]) == (1e-4, 2e-4)
    for index, wanted in enumerate(state.missing(plan.stages["pilot"])):
        state.add(finished(wanted, 1.0, diverged=index == 0))
    differences = CLAIMS[0].differences(state, plan.rates, [1000, 1001, 1002])
    assert differences.n == 2
    assert not math.isnan(differences.mean)


def test_what_is_done_is_read_again_but_for_a_line_that_was_cut_off(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Plan.of(state, **SEEDS).next(state)[1]
    for each in wanted[:3]:
        state.add(finished(each, 1.0))
    file = state.folder / "runs.jsonl"
    file.write_text(file.read_text()[:-20])
    again = State(state.folder, {"size": "tiny"})
    assert list(again.done) == [each.key for each in wanted[:2]]
    assert "a line is damaged" in capsys.readouterr().out
    again.add(finished(wanted[2], 1.0))
    assert len(State(state.folder, {"size": "tiny"}).done) == 3
    with pytest.raises(SystemExit, match="runs of another size"):
        State(state.folder, {"size": "cpu"})


def test_the_value_of_a_run_is_its_last_three_evaluations() -> None:
    run = finished(Wanted(PRIMARY[0].name, 1e-4, 0), 1.0)
    assert run.value == pytest.approx(1 + 0.01)
    assert run.still_falls == pytest.approx(-0.03)


def test_cells_are_the_papers_network_but_for_what_they_compare() -> None:
    for name, cell in CELLS.items():
        generator = cell.network.model(SIZES["gpu"]).generator
        assert (generator.norm, generator.upsample, generator.num_blocks, generator.base_channels) == (
            "instance",
            "transposed",
            9,
            64,
        )
        assert not generator.nonlocal_scaled, name
    assert [SIZES[name].load for name in ("cpu", "gpu")] == [72, 144]
    optimizer = Wanted("NLA-CycleGAN, Nadam, mu = beta1", 2e-4, 0).optimizer()
    assert optimizer.beta1 * (1 - 0.5 * 0.96**optimizer.momentum_decay) == pytest.approx(optimizer.beta1)


def test_runs_that_would_not_end_in_time_are_put_off_so_that_the_others_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three take turns of a second each; there is time for a little more than one run of 1,000 steps."""
    clock = [0.0]

    def steps(wanted: Wanted, images: object, *, prepare: bool) -> Iterator[None]:
        for _ in range(1000):
            clock[0] += 1
            yield
        return wanted

    monkeypatch.setattr(evidence_turns, "steps_of", steps)
    monkeypatch.setattr(evidence_turns.time, "monotonic", lambda: clock[0])
    images = SimpleNamespace(size=SimpleNamespace(pairs=1000))
    wanted = [Wanted(name, 1e-4, 0) for name in list(CELLS)[:4]]
    ended = list(evidence_turns.in_turns(wanted, images, 3, 2100.0, lambda: clock[0] == 0 or clock[0] < 900))
    assert ended == wanted[:1]
    assert clock[0] < 2100
    assert capsys.readouterr().out.count("put off, it would not end in time") == 2
    clock[0] = 0
    assert list(evidence_turns.in_turns(wanted, images, 2, 1e9, lambda: True)) == wanted
    clock[0] = 0
    assert list(evidence_turns.in_turns(wanted, images, 2, 500.0, lambda: clock[0] < 500)) == []
    assert clock[0] < 1000, "what cannot end is not begun to its end"


def test_a_call_begins_as_many_runs_as_it_may_and_has_time_for(tmp_path: Path) -> None:
    state = State(tmp_path, {})
    few, late = Limits(state, math.inf, 2), Limits(state, -math.inf, None)
    assert [few.another() for _ in range(4)] == [True, True, False, False]
    assert few.reached == "2 runs, as many as --runs allows"
    assert (late.another(), late.reached) == (False, "the time is over")
