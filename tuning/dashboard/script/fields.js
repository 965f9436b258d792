// How the measure depends on the fields: their importance, and one chart a field.

import { BLUE, FAINT, GREY, draw, points, remove, shade } from "page/plot";
import { compared, isFiltered, sweep, textOf, view } from "page/store";
import { element, ends, find, number } from "page/text";

const BOXED = 6; // fewer points get no box
export const FEW = 50; // more points are small

export function drawImportance() {
  const rows = sweep.importance.toReversed();
  if (!rows.length) return remove("importance");
  const shares = rows.map((row) => row.share), percent = (share) => `${Math.round(100 * share)} %`;
  draw("importance", [{
    type: "bar", orientation: "h", x: shares, y: rows.map((row) => row.axis.label), width: 0.55, marker: { color: BLUE },
    error_x: {
      type: "data", symmetric: false, color: GREY, thickness: 1.5, width: 4,
      array: rows.map((row) => Math.max(0, row.high - row.share)), arrayminus: rows.map((row) => Math.max(0, row.share - row.low)),
    },
    customdata: rows.map((row) => [[], row.low, row.high]),
    hovertemplate: "%{y}: %{x:.0%} (80 % of random halves: %{customdata[1]:.0%} to %{customdata[2]:.0%})<extra></extra>",
  }], {
    margin: { l: 8, r: 52, t: 12, b: 8 },
    annotations: rows.map((row) => ({ x: Math.max(row.share, row.high), y: row.axis.label, text: `<b>${percent(row.share)}</b>`, showarrow: false, xanchor: "left", xshift: 8 })),
    xaxis: { tickformat: ".0%", rangemode: "tozero", nticks: 5 }, yaxis: { showgrid: false, ticks: "", ticklabelstandoff: 6 },
  }, {
    height: 70 + 44 * rows.length, brush: false,
    label: `Importance of fields: ${sweep.importance.map((row) => `${row.axis.label} ${percent(row.share)}`).join(", ")}.`,
  });
}

export function drawFields() {
  const shown = compared(view.groups), all = compared(view.everything);
  const axes = all.length > 1 ? view.axes : [], grid = find("#fields .grid"), idOf = (axis) => `field-${axis.place}`;
  for (const place of document.querySelectorAll(".measured")) place.textContent = number(sweep.age);
  // All have their places before the first is drawn, which takes the width that it has then.
  if ([...grid.children].map(({ id }) => id).join() !== axes.map(idOf).join()) {
    for (const { id } of grid.children) remove(id);
    grid.replaceChildren(...axes.map((axis) => element("div", { id: idOf(axis) }, element("h3", {}, axis.label), element("div", { class: "holder" }))));
  }
  for (const axis of axes) drawField(axis, shown, all, idOf(axis));
}

function drawField(axis, shown, all, id) {
  // Of a choice the measure is across, so that the names of the values have room.
  const isChoice = axis.scale === "choice", [field, measure] = isChoice ? ["y", "x"] : ["x", "y"];
  const placed = (found) => ({ [field]: placesOf(axis, found), [measure]: found.map((point) => point.value) });
  const texts = (point) => [textOf(point.trials[0], axis)], isFew = shown.length <= FEW;
  draw(id, [isChoice && boxes(axis, shown), isFiltered() && context(placed(all), all), points(shown, texts, `%{${measure}:.4~g}, ${axis.label} %{customdata[2]}`, {
    ...placed(shown),
    marker: { size: isFew ? 9 : 6, opacity: isFew ? 0.85 : 0.6, color: shown.map((point) => shade(point.place)) },
    [`error_${measure}`]: {
      type: "data", symmetric: false, color: GREY, thickness: 1.2, width: 3, visible: shown.some((point) => point.values.length > 1),
      array: shown.map((point) => Math.max(...point.values) - point.value),
      arrayminus: shown.map((point) => point.value - Math.min(...point.values)),
    },
  })], {
    [`${measure}axis`]: { title: { text: view.label } },
    [`${field}axis`]: { ...axisOf(axis, all), ...(isChoice ? { range: [axis.choices.length - 0.5, -0.5] } : {}) },
  }, { height: Math.max(240, 70 + 46 * axis.choices.length), label: `${view.label} by ${axis.label}: ${shown.length} points.` });
}

// What is not selected, faint, so that the axes and the page stay as they are.
export const context = (places, all) => ({
  type: "scatter", mode: "markers", ...places, hoverinfo: "skip", customdata: all.map((point) => [point.numbers]),
  marker: { size: all.length <= FEW ? 7 : 5, color: FAINT },
});

// Values; of a choice its index, spread sideways at the same places in every page.
export const placesOf = (axis, found) => found.map(({ numbers: [first], trials: [trial] }) =>
  trial.places[axis.place] + (axis.scale === "choice" ? 0.44 * ((first * 0.618034) % 1 - 0.5) : 0));

export function axisOf(axis, found) {
  if (axis.scale === "choice") {
    return {
      tickvals: axis.choices.map((_, place) => place), ticktext: axis.choices, zeroline: false, showgrid: false,
      ticklabelstandoff: 6, range: [-0.5, axis.choices.length - 0.5],
    };
  }
  if (axis.scale === "linear") return { nticks: 6 };
  const [low, high] = ends(found.map((point) => point.trials[0].places[axis.place]));
  return { type: "log", tickformat: "~g", dtick: high / low < 30 ? "D2" : Math.ceil(Math.log10(high / low) / 6) };
}

// A box for each choice of enough points.
function boxes(axis, found) {
  const place = (point) => point.trials[0].places[axis.place], at = Map.groupBy(found, place);
  const boxed = found.filter((point) => at.get(place(point)).length >= BOXED);
  return {
    type: "box", orientation: "h", x: boxed.map((point) => point.value), y: boxed.map(place), boxpoints: false, width: 0.6, hoverinfo: "skip",
    line: { color: GREY, width: 1.5 }, fillcolor: FAINT,
  };
}
