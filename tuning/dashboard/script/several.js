// Several sweeps: the best score so far over what was spent, and the budget to reach a score.

import { BLUE, GREY, ORANGE, TEAL, VIOLET, draw } from "page/plot";
import { choices, page } from "page/store";
import { duration, element, find, number } from "page/text";

const COLORS = [BLUE, ORANGE, TEAL, VIOLET], DASHES = ["solid", "dash", "dot"];

export function drawSeveral() {
  const { sweeps } = page.several;
  const reached = sweeps.map((each) => each.best).filter((best) => best !== null);
  // By default the score that all sweeps have reached.
  const target = choices.target ?? (reached.length ? Math.max(...reached) : null);
  if (document.activeElement !== find("[name=target]")) find("[name=target]").value = target === null ? "" : Number(target.toPrecision(5));
  find("[name=spent]").value = choices.spent;
  const [unit, part, title] = choices.spent === "seconds" ? ["seconds", 3600, "worker hours, all trials"] : ["images", 1, "images, all trials"];
  draw("progress", sweeps.map(({ name, progress, images, seconds }, i) => {
    // The line goes on to the end of what was spent.
    const course = progress.length ? [...progress, { ...progress.at(-1), images, seconds }] : [{}];
    return {
      type: "scatter", mode: "lines+markers", name: progress.length ? name : `${name} (none finished)`,
      x: course.map((point) => point[unit] / part), y: course.map((point) => point.best),
      line: { shape: "hv", width: 2.5, color: COLORS[i % COLORS.length], dash: DASHES[Math.floor(i / COLORS.length) % DASHES.length] },
      customdata: course.map((point) => [[], name, point.trial]), hovertemplate: "%{customdata[1]}: %{y:.4~g} by trial %{customdata[2]}<extra></extra>",
    };
  }), {
    showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { title: { text: title }, rangemode: "tozero", nticks: 6 }, yaxis: { title: { text: "best score so far, lower is better" } },
    shapes: target === null ? [] : [{
      type: "line", xref: "paper", x0: 0, x1: 1, y0: target, y1: target, line: { width: 1.5, dash: "dot", color: GREY },
      label: { text: "score to reach", textposition: "end", yanchor: "bottom" },
    }],
  }, { height: 440, brush: false, label: `Best score so far over what was spent, of ${sweeps.length} sweeps.` });
  find("#sweeps tbody").replaceChildren(...sweeps.map((each) => {
    const there = target === null ? undefined : each.progress.find((point) => point.best <= target);
    const cells = [number(each.trials), number(each.best), number(each.images), duration(each.seconds), there ? number(there.images) : "not reached", there ? duration(there.seconds) : "–"];
    return element("tr", {}, element("th", { scope: "row" }, each.name), ...cells.map((cell) => element("td", { class: "number" }, cell)));
  }));
}
