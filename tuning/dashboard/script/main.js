// Draws the page, and while the sweep runs takes newer data from the server without a reload.

import { prepareControls, drawControls } from "page/controls";
import { drawCosts, drawStops, drawTimeline } from "page/cost";
import { drawCurves } from "page/curves";
import { drawFields, drawImportance, drawRanks } from "page/fields";
import { drawParallel } from "page/parallel";
import { drawComparison, drawGallery } from "page/pictures";
import { drawRanking } from "page/ranking";
import { drawSeveral, prepareSeveral } from "page/several";
import { follow, load, page } from "page/store";

const POLL_MS = 2000;
const SWEEP = [drawCurves, drawImportance, drawFields, drawRanks, drawParallel, drawComparison, drawGallery, drawTimeline, drawCosts, drawStops];

const first = JSON.parse(document.getElementById("data").textContent);
if (first.sweep) { prepareControls(); follow(drawControls, true); follow(drawRanking, true); SWEEP.forEach((draw) => follow(draw)); }
if (first.several) { prepareSeveral(); follow(drawSeveral); }
load(first);
document.documentElement.dataset.ready = "";
if (first.watching) poll();

// Replace the parts of the page whose texts have changed, and draw the newer data.
async function refresh() {
  const version = await (await fetch("version")).text();
  if (version === page.version) return;
  const newer = await (await fetch("data")).json();
  for (const [name, html] of Object.entries(newer.parts)) {
    if (page.parts[name] !== html) document.querySelector(`[data-part="${name}"]`).innerHTML = html;
  }
  load(newer);
}

function poll() {
  // While the server is away, the page stays as it is.
  setTimeout(() => refresh().catch(() => {}).then(poll), POLL_MS);
}
