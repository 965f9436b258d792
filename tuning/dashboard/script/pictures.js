// Previews: two trials side by side over the course of their training, and the newest of the best trials.

import { choices, choose, sweep, valuesOf, view } from "page/store";
import { element, find, number, options } from "page/text";

const SHOWN = 12;

// A number that is lower for better trials; a trial without the measure, such as a diverged one, is the worst.
const badness = (trial) => (view.value(trial) === null ? Infinity : view.value(trial) * (view.metric.isHigherBetter ? -1 : 1));

// Trials with pictures: the best of each group by rank, then the second of each, ...
const illustrated = () => view.groups.flatMap((group) => group.trials
  .filter((trial) => sweep.pictures[trial.number]?.length)
  .sort((one, other) => badness(one) - badness(other))
  .map((trial, place) => ({ trial, place, name: group.trials.length > 1 ? `${group.name}, trial ${trial.number}` : group.name })))
  .sort((one, other) => one.place - other.place);

export function drawComparison() {
  const section = find("#pictures"), found = illustrated();
  section.hidden = !Object.keys(sweep.pictures).length;
  section.querySelector(".none").hidden = found.length > 0;
  const [left, right] = [choices.a, choices.b].map((wanted) => found.find(({ trial }) => trial.number === wanted));
  const a = left ?? found.find((each) => each !== right), b = right ?? found.find((each) => each !== a);
  const steps = [...new Set([a, b].filter(Boolean).flatMap((each) => sweep.pictures[each.trial.number].map((picture) => picture.images)))].sort((one, other) => one - other);
  const images = steps.filter((step) => choices.images === null || step <= choices.images).at(-1) ?? steps[0];
  const slider = section.querySelector("[type=range]"), seen = images === undefined ? "" : `after ${number(images)} images`;
  section.querySelector(".slider").hidden = steps.length < 2;
  Object.assign(slider, { max: Math.max(0, steps.length - 1), value: steps.indexOf(images), ariaValueText: seen });
  slider.oninput = () => choose({ images: Number(slider.value) < steps.length - 1 ? steps[slider.value] : null });
  section.querySelector("output").textContent = seen;
  const pairs = found.map(({ trial, name }) => [String(trial.number), `${name} (${number(view.value(trial))})`]);
  for (const [side, each] of [["a", a], ["b", b]]) {
    const figure = section.querySelector(`figure.${side}`);
    figure.hidden = !each;
    options(figure.querySelector("select"), pairs, each && String(each.trial.number));
    if (each) show(figure, each.trial, images);
  }
}

function show(figure, trial, images) {
  const all = sweep.pictures[trial.number], image = figure.querySelector("img");
  const picture = all.filter((each) => each.images <= images).at(-1) ?? all[0], after = `after ${number(picture.images)} images`;
  if (image.getAttribute("src") !== picture.source) image.src = picture.source;
  image.alt = `Held-out images, their translations and attention by trial ${trial.number} ${after}`;
  const facts = [after, number(view.value(trial)), valuesOf(trial, view.axes)].filter(Boolean);
  figure.querySelector("figcaption").replaceChildren(element("b", {}, `trial ${trial.number}`), ` · ${facts.join(" · ")}`);
}

export function drawGallery() {
  find("#samples .grid").replaceChildren(...illustrated().slice(0, SHOWN).map(({ trial, name }) => {
    const { source, width, height } = sweep.pictures[trial.number].at(-1);
    const image = element("img", { src: source, width, height, decoding: "async", alt: `Newest preview of trial ${trial.number}` });
    return element("figure", {},
      element("button", { class: "picture", "aria-label": `Compare trial ${trial.number} over its training`, onclick: () => compare(trial.number) }, image),
      element("figcaption", {}, element("b", {}, name), ` · ${number(view.value(trial))}`));
  }));
}

function compare(trial) {
  choose({ b: choices.b ?? (choices.a !== trial ? choices.a : null), a: trial });
  find("#pictures").scrollIntoView({ behavior: "smooth" });
}
