// Several sweeps: the best score so far over what was spent, and the budget to reach a score.

import { draw, shade } from "page/plot";
import { choices, choose, page } from "page/store";
import { duration, element, number } from "page/text";

export function prepareSeveral() {
  document.querySelector("#target").addEventListener("input", ({ target }) => choose({ target: target.value === "" ? null : target.valueAsNumber }));
  document.querySelector("[name=spent]").addEventListener("change", drawSeveral);
}

export function drawSeveral() {
  const { sweeps } = page.several;
  const reached = sweeps.filter((each) => each.best !== null).map((each) => each.best);
  // By default the score that all sweeps have reached.
  const target = choices.target ?? (reached.length ? Math.max(...reached) : null);
  const input = document.querySelector("#target");
  if (document.activeElement !== input) input.value = target === null ? "" : Number(target.toPrecision(5));
  const unit = document.querySelector("[name=spent]").value;
  const colour = (i) => shade(sweeps.length > 1 ? i / (sweeps.length - 1) : 0);
  // The line goes on to the end of what was spent.
  const courseOf = (each) => (each.progress.length ? [...each.progress, { ...each.progress.at(-1), images: each.images, seconds: each.seconds }] : []);
  const traces = sweeps.map((each, i) => ({
    type: "scatter", mode: "lines+markers", name: each.name, x: courseOf(each).map((point) => point[unit] / (unit === "seconds" ? 3600 : 1)),
    y: courseOf(each).map((point) => point.best), line: { shape: "hv", width: 2.5, color: colour(i), dash: ["solid", "dash", "dot", "dashdot"][i % 4] },
    customdata: courseOf(each).map((point) => [[], point.trial]), hovertemplate: `${each.name}: %{y:.4~g} by trial %{customdata[1]}<extra></extra>`,
  }));
  draw("progress", document.querySelector("#progress .holder"), traces, {
    showlegend: true, legend: { orientation: "h", y: -0.22, x: 0 },
    xaxis: { title: { text: unit === "seconds" ? "hours of workers, all trials" : "images of all trials" }, rangemode: "tozero" },
    yaxis: { title: { text: "best score so far, lower is better" } },
    shapes: target === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: target, y1: target, line: { width: 1.5, dash: "dash", color: "rgb(134,142,150)" } }],
  }, { height: 440, brush: false, label: `Best score so far over what was spent, of ${sweeps.length} sweeps.` });
  document.querySelector("#sweeps tbody").replaceChildren(...sweeps.map((each) => {
    const there = target === null ? undefined : each.progress.find((point) => point.best <= target);
    const cells = [each.name, number(each.trials), number(each.best), number(each.images), duration(each.seconds), there ? number(there.images) : "not reached", there ? duration(there.seconds) : "–"];
    return element("tr", {}, ...cells.map((cell, i) => element(i ? "td" : "th", { class: i ? "number" : null, scope: i ? null : "row" }, cell)));
  }));
}
