// How long something is: a bar of a round length, in um and mm or m and km; in pixels where the pixel size is not known.

import { element, setText } from "./elements.js";
import { count, length } from "./figures.js";

const LONGEST_PX = 140;

/** The greatest of 1, 2, 5 x 10^n that is not above `most`. */
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find((step) => step * power <= most * (1 + 1e-9)) * power;
}

/** zoom: screen pixels to one of the image's. image: JobView.image. -> {px, text} */
export function scaleOf(zoom, image) {
  const known = image.pixel_size && image.unit;
  const perScreenPx = (known ? image.pixel_size[1] : 1) / zoom;
  const value = known ? roundLength(LONGEST_PX * perScreenPx) : Math.max(1, roundLength(LONGEST_PX * perScreenPx));
  return { px: value / perScreenPx, text: known ? length(value, image.unit) : `${count(value)} px` };
}

export class ScaleBar {
  #bar = element("span", { className: "scale-line", "aria-hidden": "true" });
  #text = element("span", { className: "scale-text" });

  constructor() {
    this.element = element("div", { className: "scale-bar", hidden: true }, this.#text, this.#bar);
  }

  show(zoom, image) {
    const { px, text } = scaleOf(zoom, image);
    this.element.hidden = false;
    setText(this.#text, text);
    this.#bar.style.setProperty("inline-size", `${px.toFixed(1)}px`);
  }
}
