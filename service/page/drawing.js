// A box drawn on an image: by dragging, or by its numbers.

import { byId, showProblem } from "./elements.js";
import { makeViewer } from "./pane.js";
import { imageFormat, readPyramid, tileSource } from "./pyramid.js";

const NAMES = ["x", "y", "width", "height"];

/** job: one whose image is in the service. text: the box so far. -> "x,y,width,height", or null when given up. */
export async function drawBox(job, text) {
  const dialog = byId("drawing");
  const stage = byId("drawing-stage");
  showProblem(byId("drawing-problem"), null);
  dialog.showModal();
  const viewer = makeViewer(stage);
  const box = new Box(viewer, job.image, byId("drawing-form").elements);
  try {
    const pyramid = await readPyramid(job.links.image_dzi, imageFormat(job.image));
    viewer.addTiledImage({ tileSource: tileSource(pyramid), success: () => box.begin(text) });
    return (await ended(dialog)) === "use" ? box.text : null;
  } catch (problem) {
    showProblem(byId("drawing-problem"), problem);
    await ended(dialog);
    return null;
  } finally {
    viewer.destroy();
    box.end();
  }
}

/** -> "use", or "" when cancelled. */
function ended(dialog) {
  const form = byId("drawing-form");
  return new Promise((resolve) => {
    const control = new AbortController();
    const { signal } = control;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (NAMES.every((name) => form.elements[name].value !== "")) dialog.close("use");
    }, { signal });
    byId("drawing-cancel").addEventListener("click", () => dialog.close(""), { signal });
    dialog.addEventListener("cancel", () => (dialog.returnValue = ""), { signal });
    dialog.addEventListener("close", () => {
      control.abort();
      resolve(dialog.returnValue);
    }, { signal });
  });
}

class Box {
  #viewer;
  #image;
  #fields;
  #mark = document.createElement("div");
  #from = null;
  #control = new AbortController();

  constructor(viewer, image, fields) {
    this.#viewer = viewer;
    this.#image = image;
    this.#fields = fields;
    this.#mark.className = "box-mark";
    viewer.addHandler("canvas-press", (event) => (this.#from = event.originalEvent.shiftKey ? null : this.#pixel(event.position)));
    viewer.addHandler("canvas-drag", (event) => this.#drag(event));
    viewer.addHandler("canvas-drag-end", (event) => (event.preventDefaultAction = this.#from !== null));
    for (const name of NAMES) fields[name].addEventListener("input", () => this.#show(), { signal: this.#control.signal });
  }

  /** text: "x,y,width,height", or anything else for none. */
  begin(text) {
    this.#viewer.viewport.goHome(true);
    const numbers = text.split(",").map(Number);
    const known = numbers.length === 4 && numbers.every(Number.isFinite);
    NAMES.forEach((name, i) => (this.#fields[name].value = known ? numbers[i] : ""));
    this.#show();
  }

  end() {
    this.#control.abort();
  }

  get text() {
    return this.#numbers.join(",");
  }

  get #numbers() {
    return NAMES.map((name) => Number(this.#fields[name].value));
  }

  #pixel(position) {
    const { x, y } = this.#viewer.world.getItemAt(0).viewerElementToImageCoordinates(position);
    return [Math.min(Math.max(Math.round(x), 0), this.#image.width), Math.min(Math.max(Math.round(y), 0), this.#image.height)];
  }

  #drag(event) {
    if (!this.#from) return;
    event.preventDefaultAction = true;
    const [x0, y0] = this.#from;
    const [x1, y1] = this.#pixel(event.position);
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(1, Math.abs(x1 - x0)), Math.max(1, Math.abs(y1 - y0))];
    NAMES.forEach((name, i) => (this.#fields[name].value = box[i]));
    this.#show();
  }

  #show() {
    const [x, y, width, height] = this.#numbers;
    const item = this.#viewer.world.getItemAt(0);
    if (!item || !width || !height) return this.#viewer.removeOverlay(this.#mark);
    const location = item.imageToViewportRectangle(x, y, width, height);
    if (this.#viewer.getOverlayById(this.#mark)) return this.#viewer.updateOverlay(this.#mark, location);
    return this.#viewer.addOverlay({ element: this.#mark, location });
  }
}
