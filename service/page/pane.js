// One job's image in deep zoom, its mask over it. Coordinates are level-0 pixels; zoom is screen pixels to one of them.

import { element, showProblem } from "./elements.js";
import { MaskLayer } from "./layer.js";
import { Overview } from "./overview.js";
import { formatColors } from "./permalink.js";
import { imageFormat, readPyramid, thumbnail, tileSource } from "./pyramid.js";
import { ScaleBar } from "./scalebar.js";

const PAN_SHARE = 1 / 6; // of the view, for one press of an arrow key
const ZOOM_STEP = 1.5;
const OVERVIEW_LEVEL = 8; // one tile
const REFRESH_MS = 1200; // at most one reload of a running job's mask in this time

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** OpenSeadragon adds a style of its own, which the policy refuses, unless an element of this name is marked so. */
function standInForStyle() {
  if (document.querySelector("style[data-openseadragon-mobile-css]")) return;
  const mark = document.createElementNS("about:stand-in", "style");
  mark.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(mark);
}

/** An OpenSeadragon viewer as this page wants it: no buttons, our own keys, nothing but its canvas. */
export function makeViewer(host) {
  standInForStyle();
  const viewer = new OpenSeadragon.Viewer({
    element: host,
    drawer: "canvas",
    showNavigationControl: false,
    keyboardNavEnabled: false,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    animationTime: calm() ? 0 : 0.5,
    blendTime: 0,
    preserveImageSizeOnResize: true,
    visibilityRatio: 0.3,
    minZoomImageRatio: 0.6,
    maxZoomPixelRatio: 16,
    imageLoaderLimit: 5,
    timeout: 60000,
  });
  viewer.addHandler("viewport-change", () => smoothBelowOne(viewer));
  return viewer;
}

/** Nearer than one to one, pixels are shown as the squares they are. */
function smoothBelowOne(viewer) {
  const item = viewer.world.getItemAt(0);
  if (item) viewer.drawer.setImageSmoothingEnabled(item.viewportToImageZoom(viewer.viewport.getZoom(true)) < 1);
}

export class Pane {
  #viewer;
  #item = null;
  #layer = null;
  #job = null;
  #look = { opacity: 0.5, hidden: new Set(), colors: new Map() };
  #opening = null;
  #wanted = null;
  #refresh = null;
  #version = 0;
  #scaleBar = new ScaleBar();
  #overview = new Overview((centre) => this.#go(centre));
  #notice;
  #mark = null;

  /** onMove(): the view changed. onPointer(point or null): {x, y} under the pointer. */
  constructor(name, { onMove = () => {}, onPointer = () => {} } = {}) {
    this.host = element("div", { className: "pane-stage" });
    this.title = element("p", { className: "pane-title" });
    this.#notice = element("div", { className: "pane-notice", role: "status" });
    const crosshair = element("span", { className: "crosshair", "aria-hidden": "true" });
    this.element = element("div", { className: "pane" }, this.host, crosshair, this.title,
      this.#scaleBar.element, this.#overview.element, this.#notice);
    this.#viewer = makeViewer(this.host);
    this.#viewer.addHandler("viewport-change", () => this.#moved(onMove));
    this.#viewer.addHandler("resize", () => this.#moved(onMove));
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${name}: arrow keys move, plus and minus zoom, 0 shows all`);
    this.canvas.addEventListener("keydown", (event) => this.#press(event));
    this.host.addEventListener("pointermove", (event) => onPointer(this.#pointOf(event)));
    this.host.addEventListener("pointerleave", () => onPointer(null));
  }

  get canvas() {
    return this.#viewer.canvas;
  }

  get viewport() {
    return this.#viewer.viewport;
  }

  get isOpen() {
    return this.#item !== null;
  }

  get job() {
    return this.#job;
  }

  close() {
    this.#opening?.abort();
    clearTimeout(this.#refresh);
    this.#layer?.close();
    this.#viewer.destroy();
  }

  /** The job as it is now: its picture is opened once it is there, its mask loaded anew when regions have come. */
  async show(job) {
    const before = this.#job;
    this.#job = job;
    this.#tellWaiting();
    if (!job.links.image_dzi) return;
    if (!this.#opening) await this.#open();
    else if (this.#layer && before && progressOf(before) !== progressOf(job)) this.#refreshSoon();
  }

  /** look: {opacity, hidden: Set, colors: Map} */
  set look(look) {
    this.#look = look;
    if (!this.#layer) return;
    this.#layer.opacity = look.opacity;
    this.#showMask();
  }

  /** {x, y, zoom}, or null before there is a picture. */
  get view() {
    if (!this.#item) return this.#wanted;
    const centre = this.#item.viewportToImageCoordinates(this.viewport.getCenter(true));
    return { x: centre.x, y: centre.y, zoom: this.#item.viewportToImageZoom(this.viewport.getZoom(true)) };
  }

  set view(view) {
    this.#wanted = view;
    if (!this.#item || !view) return;
    this.viewport.zoomTo(this.#item.imageToViewportZoom(view.zoom), null, true);
    this.viewport.panTo(this.#item.imageToViewportCoordinates(view.x, view.y), true);
  }

  /** box: [y0, x0, y1, x1]. Goes there and frames it. */
  showBox([y0, x0, y1, x1]) {
    if (!this.#item) return;
    const place = this.#item.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
    this.unmark();
    this.#mark = element("div", { className: "box-mark" });
    this.#viewer.addOverlay({ element: this.#mark, location: place });
    const margin = 0.6;
    this.viewport.fitBoundsWithConstraints(
      new OpenSeadragon.Rect(
        place.x - place.width * margin, place.y - place.height * margin,
        place.width * (1 + 2 * margin), place.height * (1 + 2 * margin)),
      calm());
  }

  unmark() {
    if (this.#mark) this.#viewer.removeOverlay(this.#mark);
    this.#mark = null;
  }

  showAll() {
    this.viewport.goHome(calm());
  }

  zoomBy(factor) {
    this.viewport.zoomBy(factor);
    this.viewport.applyConstraints(calm());
  }

  async #open() {
    this.#opening = new AbortController();
    try {
      const { signal } = this.#opening;
      const { links, image } = this.#job;
      const mask = links.mask_dzi ? await readPyramid(links.mask_dzi, "png", signal) : null; // a job that failed has none
      this.#item = await this.#addImage(await readPyramid(links.image_dzi, imageFormat(image), signal));
      this.#overview.open(thumbnail(links.image_dzi, image, imageFormat(image), "", OVERVIEW_LEVEL), image);
      this.viewport.resize(new OpenSeadragon.Point(this.host.clientWidth, this.host.clientHeight), false);
      if (mask) this.#layer = new MaskLayer(this.#viewer, mask, this.#look.opacity);
      if (this.#wanted) this.view = this.#wanted;
      else this.viewport.goHome(true);
      this.#tellWaiting();
      if (mask) await this.#showMask();
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#opening = null; // the next news of the job tries again
      showProblem(this.#notice, problem);
    }
  }

  #addImage(pyramid) {
    return new Promise((resolve, reject) => {
      this.#viewer.addTiledImage({
        tileSource: tileSource(pyramid),
        success: (event) => resolve(event.item),
        error: (event) => reject(new Error(event.message)),
      });
    });
  }

  #showMask() {
    const query = new URLSearchParams();
    if (this.#look.colors.size) query.set("colors", formatColors(this.#look.colors));
    if (this.#look.hidden.size) query.set("hide", [...this.#look.hidden].sort((a, b) => a - b).join(","));
    if (this.#version) query.set("v", this.#version);
    const text = query.toString();
    return this.#layer.show(text ? `?${text}` : "");
  }

  #refreshSoon() {
    if (this.#refresh) return;
    this.#refresh = setTimeout(() => {
      this.#refresh = null;
      this.#version = progressOf(this.#job);
      this.#showMask();
    }, REFRESH_MS);
  }

  #tellWaiting() {
    const job = this.#job;
    this.element.classList.toggle("waiting", !this.#item);
    if (this.#item) showProblem(this.#notice, null);
    else if (job.error) showProblem(this.#notice, job.error);
    else if (!job.links.image_dzi) this.#notice.textContent = waitingFor(job);
  }

  #moved(onMove) {
    if (!this.#item) return;
    this.#scaleBar.show(this.view.zoom, this.#job.image);
    this.#overview.show(this.#item.viewportToImageRectangle(this.viewport.getBounds(true)));
    onMove(this);
  }

  #go({ x, y }) {
    this.viewport.panTo(this.#item.imageToViewportCoordinates(x, y), true);
    this.viewport.applyConstraints(true);
  }

  #pointOf(event) {
    if (!this.#item) return null;
    const frame = this.host.getBoundingClientRect();
    const pixel = new OpenSeadragon.Point(event.clientX - frame.left, event.clientY - frame.top);
    return this.#inside(this.#item.viewportToImageCoordinates(this.viewport.pointFromPixel(pixel, true)));
  }

  /** What lies under the crosshair, for those who move by keys. */
  get centre() {
    return this.#item ? this.#inside(this.#item.viewportToImageCoordinates(this.viewport.getCenter(false))) : null;
  }

  #inside({ x, y }) {
    const { width, height } = this.#job.image;
    return x >= 0 && y >= 0 && x < width && y < height ? { x: Math.floor(x), y: Math.floor(y) } : null;
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#item) return;
    const share = event.shiftKey ? PAN_SHARE * 4 : PAN_SHARE;
    const bounds = this.viewport.getBounds();
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (steps[event.key]) {
      const [dx, dy] = steps[event.key];
      this.viewport.panBy(new OpenSeadragon.Point(dx * share * bounds.width, dy * share * bounds.height), calm());
      this.viewport.applyConstraints(calm());
    } else if (event.key === "+" || event.key === "=") this.zoomBy(ZOOM_STEP);
    else if (event.key === "-" || event.key === "_") this.zoomBy(1 / ZOOM_STEP);
    else if (event.key === "0") this.showAll();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** Changes whenever a mask has more to show. */
function progressOf(job) {
  return job.regions.done + job.regions.skipped + (job.state === "succeeded" ? 1 : 0);
}

function waitingFor(job) {
  if (job.state === "cancelled") return "Cancelled before the image was read.";
  if (job.state === "queued") return "Waiting in the queue. The image appears here once it has been read.";
  return "Reading the image. It appears here as soon as that is done.";
}
