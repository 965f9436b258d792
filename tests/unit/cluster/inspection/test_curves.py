import itertools
import warnings

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from cluster.inspection.curves import PANELS, A, B, default_window, incomparable, loss_curves, loss_figure, smooth
from cluster.inspection.recorded_run import RecordedRun
from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
)

NAMES = ("generator_total", "gan_ab", "gan_ba", "discriminator_a", "discriminator_b", "cycle_a", "cycle_b")
IDENTITY = ("identity_a", "identity_b")


def run(images, level=1.0, names=NAMES + IDENTITY, settings=None):
    random = np.random.default_rng(0)
    records = [{"images": seen, **{name: level * random.uniform(0.5, 1) for name in names}} for seen in images]
    return RecordedRun("run", records, settings or {})


def drawn(axes, bold=True):
    """The bold or faint curves of an axes, by colour and style."""
    width = 1.8 if bold else 0.6
    lines = [line for line in axes.lines if line.get_linewidth() == width and len(line.get_xdata())]
    return {(line.get_color(), line.is_dashed()): line for line in lines}


def figure_of(*runs, window=20):
    figure = loss_figure({f"run {index}": each for index, each in enumerate(runs)}, window)
    return figure, np.array(figure.axes).reshape(-1, len(runs))


def test_every_loss_of_a_step_has_a_curve():
    weights = {name: 1.0 for name, field in LossConfig.model_fields.items() if field.annotation is float}
    step = TrainingStep(
        ModelConfig(
            generator=GeneratorConfig(base_channels=2, num_blocks=0, nonlocal_blocks=()),
            discriminator=DiscriminatorConfig(base_channels=2, num_layers=1),
        ),
        LossConfig(**weights), OptimizerConfig(), StepConfig(), seed=0, global_batch=1,
    )  # fmt: skip
    losses = step(*torch.zeros(2, 1, 3, 16, 16, dtype=torch.uint8), images_seen=0, lr=1e-3)
    assert losses.keys() <= {line.name for panel in PANELS for line in panel.lines}


def test_each_run_has_a_column_and_each_row_one_scale():
    short, long = run(range(10, 101, 10)), run(range(10, 201, 10), level=3.0)
    _, axes = figure_of(short, long)
    for row in axes:
        assert row[0].get_ylim() == row[1].get_ylim()
    assert {each.get_xlim() for each in axes.flat} == {(0.0, 200.0)}
    assert axes[0, 0].get_ylim()[1] > 1.5
    assert [text.get_text() for each in axes[0] for text in [each.title, each._left_title] if text.get_text()] == [
        "run 0",
        "run 1",
    ]


def test_curves_are_the_losses_of_the_run_smoothed_over_the_window():
    history = run(range(10, 101, 10))
    _, axes = figure_of(history, run([10, 20]))
    for name, (row, colour, dashed) in {
        "gan_ba": (1, A, False),
        "gan_ab": (1, B, False),
        "discriminator_a": (1, A, True),
        "cycle_b": (2, B, False),
        "identity_b": (2, B, True),
    }.items():
        x, y = history.series(name)
        line = drawn(axes[row, 0])[colour, dashed]
        assert line.get_xdata().tolist() == x.tolist()
        assert line.get_ydata() == pytest.approx(smooth(x, y, 20, x))
    raw = drawn(axes[0, 0], bold=False)
    assert [line.get_ydata().tolist() for line in raw.values()] == [history.series("generator_total")[1].tolist()]


def test_the_score_is_drawn_against_a_copys():
    scored, without = run(range(10, 101, 10)), run(range(10, 101, 10))
    assert figure_of(without, without)[1].shape == (3, 2)
    for seen, score in ((50, 0.9), (100, 0.7)):
        scored.records.append({"images": seen, "score_A2B": score, "score_B2A": score - 0.2, "score": score - 0.1})
    figure, axes = figure_of(without, scored, window=0)
    FigureCanvasAgg(figure).draw()
    assert axes.shape == (4, 2)
    for each in axes[3]:
        levels = [line for line in each.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
        assert [list(line.get_ydata()) for line in levels] == [[1, 1]]
        assert each.get_ylim()[1] > 1
    (both,) = (
        line
        for line in axes[3, 1].lines
        if line.get_color() == "#333333" and line.get_linewidth() == 1.8 and len(line.get_xdata())
    )
    assert both.get_ydata().tolist() == pytest.approx([0.8, 0.6])
    assert "copy of the inputs" in [text.get_text() for text in axes[3, 1].get_legend().get_texts()]


def test_the_legend_names_what_either_run_has():
    without = run([10, 20], names=NAMES)
    _, axes = figure_of(without, run([10, 20]))
    assert [text.get_text() for text in axes[2, 1].get_legend().get_texts()][2:] == ["identity of A", "identity of B"]
    _, axes = figure_of(without, without)
    assert len(axes[2, 1].get_legend().get_texts()) == 2


def test_what_non_local_blocks_add_has_a_row_of_its_own():
    one = run([10, 20], names=(*NAMES, "attention_generator_ab_4", "attention_generator_ba_4"))
    more = run(
        [10, 20],
        names=(*NAMES, *(f"attention_generator_ba_{block}" for block in range(9)), "attention_discriminator_a_2"),
    )
    figure = loss_figure({"one": one, "more": more}, 20)
    FigureCanvasAgg(figure).draw()
    axes = np.array(figure.axes).reshape(4, 2)
    assert "rms(gain $W_z$ y) / rms(x)" in axes[3, 0].get_ylabel()
    assert {*drawn(axes[3, 0])} == {(A, False), (B, False)}
    assert drawn(axes[3, 0])[A, False].get_ydata().tolist() == pytest.approx(
        smooth(*one.series("attention_generator_ba_4"), 20, np.array([10.0, 20.0])).tolist()
    )
    assert [text.get_text() for text in axes[3, 1].get_legend().get_texts()] == [
        "discriminator of A, convolution 2", "generator A to B, block 4", "generator B to A, each of 9",
    ]  # fmt: skip
    assert len(figure_of(one_without := run([10]), one_without)[1]) == 3


def test_long_runs_are_drawn_by_few_points_and_it_says_so():
    short, long = run(range(50, 3001, 50)), run(range(10, 60_001, 10))
    figure, axes = figure_of(short, long, window=2400)
    FigureCanvasAgg(figure).draw()
    x, y = long.series("gan_ab")
    line = drawn(axes[1, 1])[B, False]
    assert len(line.get_xdata()) == 301
    at = line.get_xdata()
    assert np.diff(line.get_xdata())[:-1].tolist() == [200] * 299
    assert line.get_ydata() == pytest.approx(smooth(x, y, 2400, at))
    total = drawn(axes[0, 1], bold=False)["#333333", False]
    assert total.get_ydata() == pytest.approx(smooth(*long.series("generator_total"), 200, at))
    assert "Bold: mean over 2,400 images, centred. Faint: over 200 images." in figure.get_supxlabel()
    assert axes[2, 1].get_xlabel() == "images seen (thousand pairs)"
    assert "60" in [tick.get_text() for tick in axes[2, 1].get_xticklabels()]
    # Unsmoothed is unsmoothed, however much it is.
    _, axes = figure_of(long, window=0)
    assert drawn(axes[1, 0])[B, False].get_ydata().tolist() == y.tolist()


def smoothed_one_by_one(x, y, window):
    near = [[v for u, v in zip(x, y, strict=True) if abs(u - at) <= window / 2 and np.isfinite(v)] for at in x]
    return [np.mean(values) if values else np.nan for values in near]


@pytest.mark.parametrize("window", [0, 7, 30, 1000])
def test_smoothing_is_the_mean_of_what_is_near(window):
    random = np.random.default_rng(1)
    x, y = np.cumsum(random.integers(1, 9, 40)).astype(float), random.normal(size=40)
    y[[5, 10, 20]] = np.nan, 1e20, np.inf
    assert smooth(x, y, window, x) == pytest.approx(smoothed_one_by_one(x, y, window), nan_ok=True)


def test_the_window_is_a_part_of_the_longer_run_and_is_stated():
    assert default_window([run([100]), run([5000])]) == 200
    assert "mean over 200 images" in figure_of(run([10]), window=200)[0].get_supxlabel()
    assert "not smoothed" in figure_of(run([10]), window=0)[0].get_supxlabel()


def test_a_peak_does_not_press_the_rest_to_the_ground():
    history = run(range(10, 2001, 10))
    history.records[50]["generator_total"] = 1e4
    _, axes = figure_of(history)
    assert axes[0, 0].get_ylim()[1] < 3


def test_what_differs_between_the_runs_is_written_above_them():
    ours = {"optimizer.name": "nadam", "optimizer.lr": 2e-4, "seed": 0, "model.generator.nonlocal_blocks": [2, 5]}
    theirs = ours | {"optimizer.name": "adam", "model.generator.nonlocal_blocks": []}
    _, axes = figure_of(run([10], settings=ours), run([2000], settings=theirs))
    above = [each.texts[0].get_text().splitlines() for each in axes[0]]
    assert above[0] == ["10 images seen", "optimizer.name: nadam", "model.generator.nonlocal_blocks: 2, 5"]
    assert above[1] == ["2,000 images seen", "optimizer.name: adam", "model.generator.nonlocal_blocks: none"]
    many = {f"loss.weight_{index}": 0.00002 for index in range(9)}
    _, axes = figure_of(run([10], settings=many), run([10], settings=dict.fromkeys(many, 1.0)))
    lines = axes[0, 0].texts[0].get_text().splitlines()
    assert lines[1] == "loss.weight_0: 2e-05"
    assert lines[-1] == "and 5 more settings differ"


def test_no_text_leaves_the_picture_or_meets_another():
    settings = {f"model.generator.some_rather_long_name_{index}": [index] * 40 for index in range(9)}
    others = dict.fromkeys(settings)
    label = "a run with a name that goes on and on, $x_1^2 with signs"
    runs = {label: run([10, 6_000_000], settings=settings), label[::-1]: run([10], 300.0, settings=others)}
    figure = loss_figure(runs, 0)
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 30
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    for axes in figure.axes:
        ticks = [tick.get_window_extent() for tick in axes.get_xticklabels() if tick.get_visible() and tick.get_text()]
        assert not any(left.x1 + 5 > right.x0 for left, right in itertools.pairwise(ticks))
    titles = [
        box for text, box in zip(texts, boxes, strict=True) if "name" in text.get_text() or "eman" in text.get_text()
    ]
    assert len(titles) == 4
    for index, one in enumerate(titles):
        assert not any(one.overlaps(other) for other in titles[index + 1 :])


def test_the_picture_is_the_figure_without_a_display_or_global_state():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = loss_curves({"one": run(range(10, 99)), "two": run([10])}, 5)
    assert picture.mode == "RGB"
    assert picture.size == (1500, 1140)
    pixels = np.asarray(picture).reshape(-1, 3)
    for colour in (A, B):
        wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).any()


def scored(*stretches, about=None):
    """A run with losses and scores: of each stretch its score and the images that it was measured on."""
    records = run(range(10, 40 * len(stretches) + 1, 10)).records
    for place, (score, images) in enumerate(stretches):
        for record in records[4 * place : 4 * place + 4]:
            record |= {"score": score, "score_version": 1, "score_images": images}
    return RecordedRun("run", records, {}, about or {})


def test_scores_that_are_not_comparable_have_axes_of_their_own():
    _, axes = figure_of(scored((1.2, 64)), scored((3.0, 4)), window=0)
    assert [each.get_ylim()[1] for each in axes[3]] == pytest.approx([1.32, 3.3])
    assert axes[0, 0].get_ylim() == axes[0, 1].get_ylim()
    said = [each.get_title(loc="left") for each in axes[3]]
    assert said == ["Not comparable: validation.images 64", "Not comparable: validation.images 4"]
    data = [{"config": {"data": {"load_size": side}}} for side in (286, 142, 284)]
    runs = [scored((1.2, 64), about=each) for each in data]
    assert incomparable(runs[:2]) == [("size of held-out images", "284 px", "140 px")]
    assert incomparable(runs[::2]) == []


def test_scores_of_one_run_that_are_not_comparable_are_not_joined():
    _, axes = figure_of(scored((1.2, 64), (0.6, 4)), run([10, 20]), window=1000)
    bold = [line for line in axes[3, 0].lines if line.get_linewidth() == 1.8 and len(line.get_xdata()) > 1]
    assert [(line.get_xdata().tolist(), set(np.round(line.get_ydata(), 9))) for line in bold] == [
        ([10, 20, 30, 40], {1.2}),
        ([50, 60, 70, 80], {0.6}),
    ]
    assert [line.get_xdata()[0] for line in axes[3, 0].lines if line.get_linewidth() == 0.8] == [50]
    assert "from here on\nnot comparable" in [text.get_text() for text in axes[3, 1].get_legend().get_texts()]
