// The controls: search, groups, measure, price; and what is selected.

import { curveName } from "page/curves";
import { saveCsv, saveJson } from "page/ranking";
import { choices, choose, clear, isFiltered, sweep, view } from "page/store";
import { element, options } from "page/text";

export function prepareControls() {
  const on = (selector, event, act) => document.querySelector(selector).addEventListener(event, act);
  on("#search", "input", ({ target }) => choose({ search: target.value }, true));
  on("#price", "input", ({ target }) => choose({ price: target.value === "" || target.valueAsNumber < 0 ? null : target.valueAsNumber }));
  for (const name of ["metric", "at", "curve", "x", "y"]) on(`[name=${name}]`, "change", ({ target }) => choose({ [name]: target.value }));
  for (const name of ["a", "b"]) on(`[name=${name}]`, "change", ({ target }) => choose({ [name]: Number(target.value) }));
  on("#skip", "click", () => document.querySelector("#ranking").focus());
  on("#clear", "click", clear);
  on("#csv", "click", saveCsv);
  on("#json", "click", saveJson);
  on("#link", "click", async ({ target }) => {
    await navigator.clipboard?.writeText(location.href).then(() => { target.textContent = "Copied"; }, () => prompt("The address of this view", location.href));
    setTimeout(() => { target.textContent = "Copy link"; }, 1500);
  });
}

export function drawControls() {
  document.querySelector("#controls").hidden = !sweep.trials.length;
  const write = (selector, value) => {
    const input = document.querySelector(selector);
    if (document.activeElement !== input) input.value = value ?? "";
  };
  write("#search", choices.search);
  write("#price", choices.price);
  const named = (metrics) => metrics.map((metric) => [metric.name, metric.label]);
  options(document.querySelector("[name=metric]"), named(sweep.metrics), view.metric.name);
  options(document.querySelector("[name=at]"), sweep.reductions.map((name) => [name, name]), view.at);
  options(document.querySelector("[name=curve]"), named([...sweep.metrics, ...sweep.losses]), curveName());
  drawCollapse();
  const all = sweep.trials.length, count = view.shown.length;
  document.querySelector("#selected").textContent = isFiltered() ? `${count} of ${all} trials selected` : `all ${all} trials`;
  document.querySelector("#clear").disabled = !isFiltered();
}

function drawCollapse() {
  const holder = document.querySelector("#collapse");
  holder.hidden = !sweep.axes.length;
  const fields = sweep.axes.map((axis) => axis.field);
  if (holder.dataset.fields !== fields.join()) {
    holder.dataset.fields = fields.join();
    holder.querySelector("div").replaceChildren(...sweep.axes.map((axis) => element("label", {},
      element("input", { type: "checkbox", value: axis.field, onchange: change }), ` ${axis.label}`)));
  }
  for (const box of holder.querySelectorAll("input")) box.checked = view.collapsed.includes(box.value);
}

function change() {
  const fields = [...document.querySelectorAll("#collapse input:checked")].map((box) => box.value);
  choose({ collapse: fields.join() === sweep.collapse.join() ? null : fields });
}
