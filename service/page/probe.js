// What lies under the cursor: coordinates at once, the class as soon as the service has told it.

import { readLabel } from "./api.js";
import { element, setText, swatch } from "./elements.js";
import { count } from "./figures.js";

const PAUSE_MS = 120;
const NO_DATA = 255;

export class Probe {
  #place = element("span", { className: "probe-place" });
  #color = swatch("transparent");
  #name = element("span", { className: "probe-name", "aria-live": "polite" });
  #asked = null;
  #timer = null;

  constructor() {
    this.element = element("p", { className: "probe", id: "probe" }, this.#place, this.#color, this.#name);
    this.clear();
  }

  /** point: {x, y} in level-0 pixels, or null. color(label): as the legend shows it. */
  show(job, point, color = () => null) {
    clearTimeout(this.#timer);
    this.#asked?.abort();
    if (!point) return this.clear();
    setText(this.#place, `x ${count(point.x)}  y ${count(point.y)}`);
    this.#timer = setTimeout(() => this.#ask(job, point, color), PAUSE_MS);
  }

  clear() {
    setText(this.#place, "");
    this.#tell("", null);
  }

  async #ask(job, point, color) {
    this.#asked = new AbortController();
    try {
      const found = await readLabel(job.id, point.x, point.y, this.#asked.signal);
      this.#tell(found.label === NO_DATA ? "no data" : found.name, found.label === NO_DATA ? null : color(found.label) ?? found.color);
    } catch (problem) {
      if (problem.name !== "AbortError") this.#tell(problem.code === "conflict" ? "" : problem.detail, null);
    }
  }

  #tell(name, color) {
    setText(this.#name, name);
    this.#color.style.setProperty("background-color", color ?? "transparent");
    this.#color.hidden = !color;
  }
}
