// Draws the page, and while the sweep runs takes newer data from the server without a reload.

import { drawContour } from "page/contour";
import { drawControls, prepareControls } from "page/controls";
import { drawCosts, drawStops } from "page/cost";
import { drawCurves } from "page/curves";
import { drawFields, drawImportance } from "page/fields";
import { drawParallel } from "page/parallel";
import { drawComparison, drawGallery } from "page/pictures";
import { drawRanking } from "page/ranking";
import { drawSeveral } from "page/several";
import { follow, load, page } from "page/store";
import { find } from "page/text";
import { drawTimeline } from "page/timeline";

const POLL_MS = 2000;
const OF_A_SWEEP = [
  drawControls, drawRanking, drawCurves, drawComparison, drawImportance, drawContour, drawFields, drawParallel, drawTimeline, drawCosts, drawStops, drawGallery,
];

const first = JSON.parse(find("#data").textContent);
follow(first.sweep ? OF_A_SWEEP : first.several ? [drawSeveral] : []);
prepareControls();
load(first);
if (first.watching) poll();

// Replace the parts of the page whose texts have changed, and draw the newer data.
async function refresh() {
  const version = await (await fetch("version")).text();
  if (version === page.version) return;
  const newer = await (await fetch("data")).json();
  for (const [name, html] of Object.entries(newer.parts)) if (page.parts[name] !== html) find(`[data-part="${name}"]`).innerHTML = html;
  load(newer);
}

// While the server is away, the page stays as it is.
function poll() {
  setTimeout(() => refresh().catch(() => {}).then(poll), POLL_MS);
}
