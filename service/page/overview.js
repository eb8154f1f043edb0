// The whole image, small, with a frame around what is in view. Shown when that is not all of it.

import { element } from "./elements.js";

const MOST = 0.98; // of a side in view: then nothing is left to show

export class Overview {
  #onGo;
  #image = null;
  #picture = element("img", { alt: "", draggable: false });
  #frame = element("span", { className: "overview-frame" });

  /** onGo({x, y}): go there, in level-0 pixels. By keys one moves in the image itself, so this is for the pointer. */
  constructor(onGo) {
    this.#onGo = onGo;
    this.element = element("div", { className: "overview", hidden: true, "aria-hidden": "true" }, this.#picture, this.#frame);
    const go = (event) => event.buttons === 1 && this.#go(event);
    this.element.addEventListener("pointerdown", (event) => {
      this.element.setPointerCapture(event.pointerId);
      go(event);
    });
    this.element.addEventListener("pointermove", go);
  }

  open(src, image) {
    this.#picture.src = src;
    this.#image = image;
  }

  /** view: {x, y, width, height} in level-0 pixels. */
  show({ x, y, width, height }) {
    const { width: across, height: down } = this.#image;
    const [left, right] = [x, x + width].map((at) => Math.min(1, Math.max(0, at / across)));
    const [top, bottom] = [y, y + height].map((at) => Math.min(1, Math.max(0, at / down)));
    this.element.hidden = (right - left > MOST && bottom - top > MOST) || right <= left || bottom <= top;
    const sides = { left, top, width: right - left, height: bottom - top };
    for (const [name, part] of Object.entries(sides)) this.#frame.style.setProperty(name, `${(100 * part).toFixed(2)}%`);
  }

  #go(event) {
    const frame = this.#picture.getBoundingClientRect();
    const { width, height } = this.#image;
    this.#onGo({
      x: ((event.clientX - frame.left) / frame.width) * width,
      y: ((event.clientY - frame.top) / frame.height) * height,
    });
  }
}
