// The classes of a mask: shown or not, in which colour, how much of each.

import { button, element, setText } from "./elements.js";
import { area, count, share } from "./figures.js";

const COLOR_PAUSE_MS = 250; // a colour picker tells every shade on the way

/** As a pane takes it. opacity: 0..1 */
export function lookOf(opacity, { hidden, colors }) {
  return { opacity, hidden: new Set(hidden), colors: new Map(colors) };
}

export class Legend {
  #rows = new Map();
  #list = element("ul", { className: "legend-list" });
  #missing = element("p", { className: "muted legend-missing" });
  #reset;
  #onChange;
  #defaults = new Map();
  #timer = null;
  hidden = new Set();
  colors = new Map();

  /** onChange(): `hidden` or `colors` is another. */
  constructor(title, onChange) {
    this.#onChange = onChange;
    this.heading = element("h2", { textContent: title });
    this.#reset = button("Reset", () => this.reset(), { className: "small", hidden: true });
    const head = element("div", { className: "panel-head" }, this.heading, this.#reset);
    this.element = element("section", { className: "panel legend", "aria-label": title }, head, this.#list, this.#missing);
  }

  set(hidden, colors) {
    this.hidden = new Set(hidden);
    this.colors = new Map(colors);
    this.#refresh();
  }

  colorOf(label) {
    return this.colors.get(label) ?? this.#defaults.get(label) ?? null;
  }

  /** From a JobView: areas and no_data_px. */
  show({ areas, no_data_px: missing }) {
    setText(this.#missing, missing ? `No data: ${count(missing)} px` : "");
    const sum = areas.reduce((total, entry) => total + entry.px, 0);
    for (const entry of areas) {
      this.#defaults.set(entry.id, entry.color);
      if (!this.#rows.has(entry.id)) this.#addRow(entry);
      const { px, part, extent } = this.#rows.get(entry.id);
      setText(px, `${count(entry.px)} px`);
      setText(part, share(entry.px, sum));
      setText(extent, entry.area === null ? "" : area(entry.area, entry.unit));
    }
    this.#refresh();
  }

  toggle(index) {
    [...this.#rows.values()][index]?.check.click();
  }

  reset() {
    this.set([], []);
    this.#onChange();
  }

  #addRow(entry) {
    const check = element("input", { type: "checkbox", checked: true, on: { change: () => this.#flip(entry.id) } });
    const color = element("input", { type: "color", className: "legend-color", "aria-label": `Colour of ${entry.name}` });
    color.addEventListener("input", () => this.#recolor(entry.id, color.value));
    const part = element("span", { className: "legend-share" });
    const px = element("span", { className: "legend-px" });
    const extent = element("span", { className: "legend-area" });
    const name = element("label", { className: "legend-name" }, check, element("span", { textContent: entry.name }));
    const line = element("li", { data: { label: String(entry.id) } }, color, name, part, element("span", { className: "legend-figures" }, extent, px));
    this.#list.append(line);
    this.#rows.set(entry.id, { check, color, part, px, extent });
  }

  #flip(label) {
    if (!this.hidden.delete(label)) this.hidden.add(label);
    this.#refresh();
    this.#onChange();
  }

  #recolor(label, value) {
    if (value === this.#defaults.get(label)) this.colors.delete(label);
    else this.colors.set(label, value);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#onChange(), COLOR_PAUSE_MS);
    this.#refresh();
  }

  #refresh() {
    for (const [label, { check, color }] of this.#rows) {
      check.checked = !this.hidden.has(label);
      const shown = this.colorOf(label);
      if (color.value !== shown) color.value = shown;
    }
    this.#reset.hidden = !this.hidden.size && !this.colors.size;
  }
}
