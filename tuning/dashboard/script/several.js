// Several sweeps: the best score so far over what was spent, and the budget to reach a score.

import { GREY, draw, shade, shows } from "page/plot";
import { choices, choose, page } from "page/store";
import { duration, element, number } from "page/text";

const find = (selector) => document.querySelector(selector);

export function prepareSeveral() {
  find("#target").addEventListener("input", ({ target }) => choose({ target: Number.isFinite(target.valueAsNumber) ? target.valueAsNumber : null }));
  find("[name=spent]").addEventListener("change", drawSeveral);
}

export function drawSeveral() {
  shows("progress", true);
  const { sweeps } = page.several;
  const reached = sweeps.map((each) => each.best).filter((best) => best !== null);
  // By default the score that all sweeps have reached.
  const target = choices.target ?? (reached.length ? Math.max(...reached) : null);
  if (document.activeElement !== find("#target")) find("#target").value = target === null ? "" : Number(target.toPrecision(5));
  const [unit, part, title] = find("[name=spent]").value === "seconds" ? ["seconds", 3600, "hours of workers, all trials"] : ["images", 1, "images of all trials"];
  draw("progress", sweeps.map(({ name, progress, images, seconds }, i) => {
    // The line goes on to the end of what was spent.
    const course = progress.length ? [...progress, { ...progress.at(-1), images, seconds }] : [];
    return {
      type: "scatter", mode: "lines+markers", name, x: course.map((point) => point[unit] / part), y: course.map((point) => point.best),
      line: { shape: "hv", width: 2.5, color: shade(i / Math.max(1, sweeps.length - 1)), dash: ["solid", "dash", "dot", "dashdot"][i % 4] },
      customdata: course.map((point) => [[], name, point.trial]), hovertemplate: "%{customdata[1]}: %{y:.4~g} by trial %{customdata[2]}<extra></extra>",
    };
  }), {
    showlegend: true, legend: { orientation: "h", y: -0.22, x: 0 },
    xaxis: { title: { text: title }, rangemode: "tozero" }, yaxis: { title: { text: "best score so far, lower is better" } },
    shapes: target === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: target, y1: target, line: { width: 1.5, dash: "dash", color: GREY } }],
  }, { height: 440, brush: false, label: `Best score so far over what was spent, of ${sweeps.length} sweeps.` });
  find("#sweeps tbody").replaceChildren(...sweeps.map((each) => {
    const there = target === null ? undefined : each.progress.find((point) => point.best <= target);
    const cells = [number(each.trials), number(each.best), number(each.images), duration(each.seconds), there ? number(there.images) : "not reached", there ? duration(there.seconds) : "–"];
    return element("tr", {}, element("th", { scope: "row" }, each.name), ...cells.map((cell) => element("td", { class: "number" }, cell)));
  }));
}
