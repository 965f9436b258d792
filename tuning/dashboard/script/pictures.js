// Previews: two trials side by side over the course of their training, and the newest of the best trials.

import { choices, choose, sweep, view } from "page/store";
import { element, number, options } from "page/text";

const SHOWN = 12;

// Groups by rank, each with its best trial that has pictures.
const illustrated = () => view.groups.flatMap((group) => group.trials
  .filter((trial) => sweep.pictures[trial.number]?.length)
  .sort((one, other) => (view.value(one) - view.value(other)) * (view.metric.isHigherBetter ? -1 : 1))
  .map((trial, place) => ({ trial, place, name: group.trials.length > 1 ? `${group.name}, trial ${trial.number}` : group.name })))
  .sort((one, other) => one.place - other.place);

export function drawComparison() {
  const section = document.querySelector("#pictures");
  const found = illustrated();
  section.hidden = !Object.keys(sweep.pictures).length;
  const [left, right] = [choices.a, choices.b].map((number) => found.find(({ trial }) => trial.number === number));
  const a = left ?? found.find((each) => each !== right), b = right ?? found.find((each) => each !== a);
  const pairs = found.map(({ trial, name }) => [String(trial.number), `${name} (${number(view.value(trial))})`]);
  const steps = [...new Set([a, b].flatMap((each) => (each ? sweep.pictures[each.trial.number].map((picture) => picture.images) : [])))]
    .sort((one, other) => one - other);
  const slider = section.querySelector("[type=range]");
  slider.max = Math.max(0, steps.length - 1);
  slider.disabled = steps.length < 2;
  const images = steps.filter((step) => choices.images === null || step <= choices.images).at(-1) ?? steps[0];
  slider.value = steps.indexOf(images);
  slider.setAttribute("aria-valuetext", `${number(images)} images`);
  slider.oninput = () => {
    const step = steps[Number(slider.value)];
    choose({ images: step === steps.at(-1) ? null : step });
  };
  section.querySelector("output").textContent = images === undefined ? "" : `after ${number(images)} images`;
  for (const [side, each] of [["a", a], ["b", b]]) {
    const figure = section.querySelector(`figure.${side}`);
    figure.hidden = !each;
    options(section.querySelector(`[name=${side}]`), pairs, each && String(each.trial.number));
    if (each) show(figure, each.trial, images);
  }
  section.querySelector(".none").hidden = found.length > 0;
}

function show(figure, trial, images) {
  const all = sweep.pictures[trial.number];
  const picture = all.filter((each) => each.images <= images).at(-1) ?? all[0];
  const image = figure.querySelector("img");
  if (image.getAttribute("src") !== picture.source) image.src = picture.source;
  image.alt = `Held-out images, their translations and attention by trial ${trial.number} after ${number(picture.images)} images`;
  const fields = view.axes.map((axis) => `${axis.label} ${trial.texts[axis.place]}`).join(", ");
  figure.querySelector("figcaption").replaceChildren(
    element("b", {}, `trial ${trial.number}`), ` · after ${number(picture.images)} images · ${number(view.value(trial))} · ${fields}`,
  );
}

export function drawGallery() {
  const section = document.querySelector("#samples");
  const found = illustrated().slice(0, SHOWN);
  section.hidden = !found.length;
  section.querySelector(".grid").replaceChildren(...found.map(({ trial, name }) => {
    const picture = sweep.pictures[trial.number].at(-1);
    return element("figure", {},
      element("button", { class: "picture", "aria-label": `Compare trial ${trial.number} over its training`, onclick: () => compare(trial.number) },
        element("img", { src: picture.source, width: picture.width, height: picture.height, decoding: "async", alt: `Newest preview of trial ${trial.number}` })),
      element("figcaption", {}, element("b", {}, name), ` · ${number(view.value(trial))}`));
  }));
}

function compare(trial) {
  choose({ b: choices.b === null && choices.a !== null && choices.a !== trial ? choices.a : choices.b, a: trial });
  document.querySelector("#pictures").scrollIntoView({ behavior: "smooth" });
}
