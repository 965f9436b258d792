// The controls: search, groups, measure, price; and what is selected.

import { parse } from "page/address";
import { curveName } from "page/curves";
import { save } from "page/ranking";
import { choices, choose, clear, isFiltered, sweep, view } from "page/store";
import { element, find, options } from "page/text";

export function prepareControls() {
  // Inputs and selects that have the name of a choice.
  const change = ({ target }) => {
    if (!(target.name in choices)) return;
    const value = parse(target.name, target.validity.valid ? target.value : "");
    if (value !== choices[target.name]) choose({ [target.name]: value }, target.type === "search");
  };
  for (const event of ["input", "change"]) document.addEventListener(event, change, { capture: true });
  if (!find("#controls")) return;
  const acts = { skip: () => Object.assign(find("#ranking"), { tabIndex: -1 }).focus(), clear, csv: () => save("csv"), json: () => save("json"), link: copyLink };
  for (const [id, act] of Object.entries(acts)) find(`#${id}`).addEventListener("click", act);
  find("#collapse").addEventListener("change", () => {
    const fields = [...document.querySelectorAll("#collapse :checked")].map((box) => box.value);
    choose({ collapse: fields.join() === sweep.collapse.join() ? null : fields });
  });
}

async function copyLink({ target }) {
  try {
    await navigator.clipboard.writeText(location.href);
    target.textContent = "Copied";
  } catch {
    prompt("The address of this view", location.href); // Browsers give no clipboard to pages of other machines without HTTPS.
  }
  setTimeout(() => { target.textContent = "Copy link"; }, 1500);
}

export function drawControls() {
  find("#controls").hidden = !sweep.trials.length;
  for (const input of document.querySelectorAll("#controls input[name]")) if (parse(input.name, input.value) !== choices[input.name]) input.value = choices[input.name] ?? "";
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
