// What is known of an image and of how its mask came about.

import { element } from "./elements.js";
import { duration, figure, size } from "./figures.js";

const UNITS = { micrometer: "µm", meter: "m" };

/** [[name, text], ...] of a JobView. */
export function factsOf(job) {
  const facts = [["Model", job.model]];
  if (job.image) facts.push(...imageFacts(job.image));
  if (job.selection) facts.push(...selectionFacts(job.selection));
  if (job.scale && job.scale !== 1) facts.push(["Read at", `1:${figure(job.scale)}`]);
  for (const [name, value] of Object.entries(changedOptions(job.options))) facts.push([name, value]);
  facts.push(["Submitted", new Date(job.created_at).toLocaleString("en")]);
  if (job.finished_at && job.started_at) {
    facts.push(["Took", duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)]);
  }
  facts.push(["Job", job.id]);
  return facts;
}

function imageFacts(image) {
  const facts = [["Image", size(image)], ["Format", [image.format, image.compression].filter(Boolean).join(", ")]];
  const unit = UNITS[image.unit];
  if (image.pixel_size && unit) facts.push(["Pixel size", `${image.pixel_size.map(figure).join(" × ")} ${unit}`]);
  else facts.push(["Pixel size", "not known; lengths are in pixels"]);
  if (image.georeference?.epsg) facts.push(["Reference system", `EPSG:${image.georeference.epsg}`]);
  image.notes.forEach((note) => facts.push(["Note", note]));
  return facts;
}

function selectionFacts(selection) {
  const facts = [["Tiles run", `${selection.tiles_selected} of ${selection.tiles_total}`]];
  if (selection.threshold !== null && selection.threshold !== undefined) {
    const share = selection.tissue_share === null ? "" : `, ${(100 * selection.tissue_share).toFixed(1)}% tissue`;
    facts.push(["Background", `${selection.method ?? "threshold"} ${figure(selection.threshold)}${share}`]);
  }
  return facts;
}

const USUAL = { resolution: "model", overlap: "none", background: "keep", min_object_px: 0, probabilities: false };
const SHOWN = { resolution: "Resolution", overlap: "Overlap", background: "Background", min_object_px: "Smallest object", probabilities: "Probabilities" };

function changedOptions(options) {
  const changed = Object.entries(SHOWN).filter(([name]) => options[name] !== undefined && options[name] !== USUAL[name]);
  const told = changed.map(([name, title]) => [title, options[name] === true ? "kept" : String(options[name])]);
  if (options.roi) told.push(["Region of interest", "given; outside it is no data"]);
  return Object.fromEntries(told);
}

export class Details {
  #list = element("dl", { className: "facts" });

  constructor() {
    this.element = element("details", { className: "panel fold", open: false },
      element("summary", {}, element("h2", { textContent: "Details" })), this.#list);
  }

  show(job) {
    const rows = factsOf(job).map(([name, text]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text })));
    this.#list.replaceChildren(...rows);
  }
}
