// A job, opened: its image with the mask over it, what there is, how much of it, and the files. Beside it another job.

import { cancelJob, isFinal, readJob } from "./api.js";
import { Comparison } from "./compare.js";
import { Details } from "./details.js";
import { Downloads } from "./downloads.js";
import { button, element, progressBar, say, setProgress, setText, showProblem } from "./elements.js";
import { Feed } from "./feed.js";
import { Legend, lookOf } from "./legend.js";
import { Pane } from "./pane.js";
import { formatView, parseView } from "./permalink.js";
import { Probe } from "./probe.js";
import { progressWords, stateWord } from "./queue.js";
import { RegionList } from "./regions.js";

const LINK_PAUSE_MS = 300;
const OPACITY = 0.5;

export class Result {
  #id;
  #job = null;
  #comparison;
  #onState;
  #onAgain;
  #feed = null;
  #linkTimer = null;
  #closed = false;
  #opacityBefore = OPACITY;
  #probe = new Probe();
  #downloads = new Downloads();
  #details = new Details();

  /** view: as from parseView. onState: the feed's. onAgain(job): segment its image once more. */
  constructor(place, view, { onState, onAgain }) {
    this.#id = view.job;
    this.#onState = onState;
    this.#onAgain = onAgain;
    this.#build(place);
    this.apply(view);
    this.#begin(view);
  }

  // -- what it is made of

  #build(place) {
    this.pane = this.#newPane("Image and mask");
    this.legend = new Legend("Classes", () => this.#looked());
    this.regions = new RegionList((box) => this.#goTo(box));
    this.title = element("h1", { textContent: "…", tabIndex: -1 });
    this.chip = element("span", { className: "chip" });
    this.problem = element("div", { role: "alert" });
    this.panes = element("div", { className: "panes" }, this.pane.element);
    this.#comparison = new Comparison(this.pane, this.panes, {
      newPane: () => this.#newPane("Compared image and mask"),
      follow: (job, take) => this.#follow(job, take),
      onChange: () => this.#looked(),
      onProblem: (problem) => showProblem(this.problem, problem),
    });
    const stage = element("div", { className: "stage" }, this.panes, this.#statusBar());
    const side = element("aside", { className: "side", "aria-label": "About this result" },
      this.#progressPanel(), this.#layerPanel(), this.legend.element, this.#comparison.legendPlace,
      this.regions.element, this.#downloads.element, this.#details.element);
    place.replaceChildren(this.#head(), this.problem, element("div", { className: "result-body" }, stage, side));
  }

  #newPane(name) {
    return new Pane(name, {
      onMove: (pane) => this.#moved(pane),
      onPointer: (point) => this.#pointed(point),
    });
  }

  #head() {
    const compare = element("div", { className: "inline-field" },
      element("label", { for: "compare", textContent: "Compare with" }), this.#comparison.choice);
    return element("div", { className: "result-head" },
      element("a", { href: "#", className: "button small back", textContent: "Jobs", "aria-label": "Back to the jobs" }),
      element("div", { className: "result-title" }, this.title, this.chip),
      element("div", { className: "result-actions" }, compare,
        (this.again = button("Segment again", () => this.#onAgain(this.#job), { className: "small", disabled: true })),
        button("Copy link", (event) => this.#copyLink(event.currentTarget), { className: "small" })));
  }

  #statusBar() {
    const zoom = (text, label, act) => button(text, act, { className: "square small", "aria-label": label });
    this.zoomText = element("span", { className: "zoom-text" });
    return element("div", { className: "status-bar" }, this.#probe.element,
      element("div", { className: "zoom-buttons" }, this.zoomText,
        zoom("−", "Zoom out", () => this.pane.zoomBy(1 / 1.5)), zoom("+", "Zoom in", () => this.pane.zoomBy(1.5)),
        button("Fit", () => this.#fit(), { className: "small", "aria-label": "Show the whole image" })));
  }

  #progressPanel() {
    this.bar = progressBar("Progress");
    this.words = element("p", { className: "job-progress" });
    this.cancel = button("Cancel", () => this.#cancel(), { className: "small" });
    this.progress = element("section", { className: "panel running", "aria-label": "Progress", hidden: true },
      this.bar, element("div", { className: "row" }, this.words, this.cancel));
    return this.progress;
  }

  #layerPanel() {
    this.slider = element("input", { type: "range", id: "opacity", min: "0", max: "100", step: "1", on: { input: () => this.#looked() } });
    this.opacityText = element("output", { for: "opacity" });
    return element("section", { className: "panel", "aria-label": "Mask" },
      element("div", { className: "slider-row" }, element("label", { for: "opacity", textContent: "Mask opacity" }), this.slider, this.opacityText));
  }

  // -- the job and its news

  async #begin(view) {
    try {
      this.#take(await readJob(this.#id));
    } catch (problem) {
      setText(this.title, "No such result");
      showProblem(this.problem, problem);
      return;
    }
    if (this.#closed) return;
    this.title.focus({ preventScroll: true });
    this.#feed = this.#follow(this.#job, (job) => this.#take(job));
    await this.#comparison.offer(this.#job);
    if (view.compared) await this.#comparison.choose(view.compared);
  }

  /** A feed for a job that goes on; none for one that has ended. */
  #follow(job, take) {
    if (isFinal(job)) {
      if (job.id === this.#id) this.#onState("over");
      return null;
    }
    const feed = new Feed(`jobs/${job.id}/events`, {
      onJob: (news) => {
        take(news);
        if (isFinal(news)) feed.close();
      },
      poll: async () => {
        const news = await readJob(job.id);
        take(news);
        if (isFinal(news)) feed.close();
      },
      onState: this.#onState,
    });
    feed.open();
    return feed;
  }

  #take(job) {
    if (this.#closed) return;
    if (this.#job) tellProgress(this.#job, job);
    this.#job = job;
    document.title = `${job.file_name} · Gigamask`;
    setText(this.title, job.file_name);
    setText(this.chip, stateWord(job));
    this.chip.dataset.state = job.state;
    this.again.disabled = !job.image;
    this.#showProgress(job);
    showProblem(this.problem, job.error);
    setText(this.pane.title, job.model);
    this.legend.show(job);
    this.regions.show(job);
    this.#downloads.show(job);
    this.#details.show(job);
    this.pane.show(job);
  }

  #showProgress(job) {
    this.progress.hidden = isFinal(job);
    setProgress(this.bar, job.percent);
    setText(this.words, progressWords(job));
  }

  async #cancel() {
    try {
      this.#take(await cancelJob(this.#id));
      this.title.focus();
    } catch (problem) {
      showProblem(this.problem, problem);
    }
  }

  // -- how it looks, and where

  /** From a permalink. */
  apply(view) {
    this.legend.set(view.hidden, view.colors);
    this.#setOpacity(view.opacity ?? OPACITY);
    if (view.x !== null && view.y !== null && view.zoom) this.pane.view = { x: view.x, y: view.y, zoom: view.zoom };
    if (this.#job && view.compared !== this.#comparison.id) this.#comparison.choose(view.compared);
  }

  get opacity() {
    return Number(this.slider.value) / 100;
  }

  #setOpacity(value) {
    this.slider.value = String(Math.round(Math.min(1, Math.max(0, value)) * 100));
    this.#looked();
  }

  changeOpacity(by) {
    this.#setOpacity(this.opacity + by);
  }

  toggleMask() {
    if (this.opacity > 0) this.#opacityBefore = this.opacity;
    this.#setOpacity(this.opacity > 0 ? 0 : this.#opacityBefore);
  }

  toggleClass(index) {
    this.legend.toggle(index);
  }

  focusPane() {
    this.pane.canvas.focus();
  }

  chooseCompared() {
    this.#comparison.choice.focus();
  }

  #looked() {
    setText(this.opacityText, `${this.slider.value}%`);
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} percent`);
    this.pane.look = lookOf(this.opacity, this.legend);
    this.#comparison.look(this.opacity);
    this.#downloads.colors = this.legend.colors;
    this.#linkSoon();
  }

  #moved(pane) {
    this.#comparison.follow(pane);
    if (pane === this.pane) {
      setText(this.zoomText, `${zoomWords(pane.view.zoom)}`);
      this.#linkSoon();
    }
    if (document.activeElement === pane.canvas && pane.canvas.matches(":focus-visible")) this.#pointed(pane.centre, pane);
  }

  #pointed(point, pane = this.pane) {
    const job = pane.job;
    if (!job?.links.mask_dzi) return;
    this.#probe.show(job, point, (label) => this.legend.colorOf(label));
  }

  #fit() {
    this.pane.unmark();
    this.#comparison.lead();
    this.pane.showAll();
  }

  #goTo(box) {
    this.#comparison.lead();
    this.pane.showBox(box);
    say("The view moved to the region");
  }

  // -- the link to this view

  get view() {
    const where = this.pane.view ?? { x: null, y: null, zoom: null };
    return { job: this.#id, ...where, opacity: this.opacity, hidden: this.legend.hidden, colors: this.legend.colors, compared: this.#comparison.id };
  }

  #linkSoon() {
    clearTimeout(this.#linkTimer);
    this.#linkTimer = setTimeout(() => this.#link(), LINK_PAUSE_MS);
  }

  #link() {
    const stillHere = parseView(location.hash).job === this.#id; // else somebody is on the way out
    if (!this.#closed && this.#job && stillHere) history.replaceState(null, "", formatView(this.view));
  }

  async #copyLink(from) {
    this.#link();
    const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    say(copied ? "Link copied" : "The link is in the address bar");
    setText(from, copied ? "Copied" : "It is in the address bar");
    setTimeout(() => setText(from, "Copy link"), 2000);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#linkTimer);
    this.#feed?.close();
    this.#comparison.close();
    this.#downloads.close();
    this.#probe.clear();
    this.pane.close();
  }
}

/** For those who listen: each state, and each quarter on the way. */
function tellProgress(before, job) {
  const quarter = ({ percent }) => Math.floor(percent / 25);
  if (before.state !== job.state) say(`${job.file_name}: ${stateWord(job)}`);
  else if (quarter(before) < quarter(job)) say(`${job.file_name}: ${Math.floor(job.percent)}%`);
}

function zoomWords(zoom) {
  return zoom >= 1 ? `${Number(zoom.toPrecision(3))}×` : `${Number((100 * zoom).toPrecision(3))}%`;
}
