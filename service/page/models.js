// The models to choose from; broken ones with the reason, so that nobody looks for them in vain.

import { readModels } from "./api.js";
import { element, showProblem, swatch } from "./elements.js";
import { figure } from "./figures.js";

const KEY = "gigamask.model";

export class ModelChoice {
  #place;

  constructor(place) {
    this.#place = place;
  }

  get chosen() {
    return this.#place.querySelector("input:checked")?.value ?? null;
  }

  /** The names that are there; what is checked stays so. */
  async refresh() {
    try {
      const { models, broken } = await readModels();
      const before = this.chosen ?? localStorage.getItem(KEY);
      const chosen = models.some((model) => model.name === before) ? before : models[0]?.name;
      this.#place.replaceChildren(...models.map((model) => option(model, model.name === chosen)), ...broken.map(brokenOne));
      if (!models.length) this.#place.prepend(element("p", { className: "muted", textContent: "There is no model here yet." }));
    } catch (problem) {
      showProblem(this.#place, problem);
    }
  }
}

function option(model, checked) {
  const radio = element("input", { type: "radio", name: "model", value: model.name, checked });
  radio.addEventListener("change", () => localStorage.setItem(KEY, model.name));
  const classes = element("span", { className: "model-classes" }, ...model.classes.map(classMark));
  return element("label", { className: "model" }, radio,
    element("span", { className: "model-words" },
      element("span", { className: "model-name", textContent: model.name }),
      element("span", { className: "model-title", textContent: model.title || model.description }),
      classes,
      element("span", { className: "model-figures", textContent: figuresOf(model) })));
}

function classMark({ name, color }) {
  return element("span", { className: "model-class" }, swatch(color), element("span", { textContent: name }));
}

function figuresOf(model) {
  const view = model.alpha > 1 ? ` within ${model.alpha * model.tile_px} px of surroundings` : "";
  return `Tiles of ${model.tile_px} px${view}; ${pixelSize(model.pixel_size)}`;
}

function pixelSize(size) {
  if (!size) return "any pixel size";
  const unit = { micrometer: "µm", meter: "m" }[size.unit] ?? size.unit;
  return `trained at ${figure(size.value ?? size.size)} ${unit} a pixel`;
}

function brokenOne({ name, detail }) {
  return element("div", { className: "model broken" },
    element("span", { className: "model-words" },
      element("span", { className: "model-name", textContent: `${name} (cannot be used)` }),
      element("span", { className: "model-figures", textContent: detail })));
}
