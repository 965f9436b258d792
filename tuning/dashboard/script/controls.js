// The controls: search, groups, measure, price; and what is selected.

import { curveName } from "page/curves";
import { save } from "page/ranking";
import { choices, choose, clear, isFiltered, sweep, view } from "page/store";
import { element, options } from "page/text";

const find = (selector) => document.querySelector(selector);

export function prepareControls() {
  const on = (selector, event, act) => find(selector).addEventListener(event, act);
  on("#search", "input", ({ target }) => choose({ search: target.value }, true));
  on("#price", "input", ({ target }) => choose({ price: target.valueAsNumber >= 0 ? target.valueAsNumber : null }));
  for (const name of ["metric", "at", "curve", "x", "y"]) on(`[name=${name}]`, "change", ({ target }) => choose({ [name]: target.value }));
  for (const name of ["a", "b"]) on(`[name=${name}]`, "change", ({ target }) => choose({ [name]: Number(target.value) }));
  on("#collapse", "change", () => {
    const fields = [...document.querySelectorAll("#collapse input:checked")].map((box) => box.value);
    choose({ collapse: fields.join() === sweep.collapse.join() ? null : fields });
  });
  on("#skip", "click", () => find("#ranking").focus());
  on("#clear", "click", clear);
  for (const kind of ["csv", "json"]) on(`#${kind}`, "click", () => save(kind));
  on("#link", "click", async ({ target }) => {
    await navigator.clipboard?.writeText(location.href).then(() => { target.textContent = "Copied"; }, () => prompt("The address of this view", location.href));
    setTimeout(() => { target.textContent = "Copy link"; }, 1500);
  });
}

export function drawControls() {
  find("#controls").hidden = !sweep.trials.length;
  for (const name of ["search", "price"]) if (document.activeElement !== find(`#${name}`)) find(`#${name}`).value = choices[name] ?? "";
  const named = (metrics) => metrics.map((metric) => [metric.name, metric.label]);
  options(find("[name=metric]"), named(sweep.metrics), view.metric.name);
  options(find("[name=at]"), sweep.reductions.map((name) => [name, name]), view.at);
  options(find("[name=curve]"), named([...sweep.metrics, ...sweep.losses]), curveName());
  const collapse = find("#collapse"), fields = sweep.axes.map((axis) => axis.field).join();
  collapse.hidden = !fields;
  if (collapse.dataset.fields !== fields) {
    collapse.dataset.fields = fields;
    collapse.querySelector("div").replaceChildren(...sweep.axes.map((axis) => element("label", {}, element("input", { type: "checkbox", value: axis.field }), ` ${axis.label}`)));
  }
  for (const box of collapse.querySelectorAll("input")) box.checked = view.collapsed.includes(box.value);
  const all = sweep.trials.length;
  find("#selected").textContent = isFiltered() ? `${view.shown.length} of ${all} trials selected` : `all ${all} trials`;
  find("#clear").disabled = !isFiltered();
}
