// Another result beside the first: two panes that show the same place. Whichever was touched last leads, the other follows; of two images of different
// size the same share of each is shown.

import { isFinal, readJob, readJobs } from "./api.js";
import { element, setText } from "./elements.js";
import { Legend, lookOf } from "./legend.js";

const LEADING = ["pointerdown", "wheel", "keydown", "focusin"];
const NEAR = 1e-9;

class Together {
  #panes;
  #leader;

  constructor(first, second) {
    this.#panes = [first, second];
    this.#leader = first;
    for (const pane of this.#panes) {
      for (const type of LEADING) {
        pane.element.addEventListener(type, () => (this.#leader = pane), { capture: true, passive: true });
      }
    }
  }

  lead(pane) {
    this.#leader = pane;
  }

  /** To be called whenever a pane moved. */
  follow(moved) {
    const [first, second] = this.#panes;
    if (moved !== this.#leader || !first.isOpen || !second.isOpen) return;
    this.align();
  }

  align() {
    const other = this.#panes.find((pane) => pane !== this.#leader);
    const from = this.#leader.viewport;
    const to = other.viewport;
    const zoom = from.getZoom(true);
    const centre = from.getCenter(true);
    if (Math.abs(to.getZoom(true) - zoom) > NEAR * zoom) to.zoomTo(zoom, null, true);
    if (to.getCenter(true).distanceTo(centre) > NEAR) to.panTo(centre, true);
  }
}

/** The choice of another job, and what shows it. */
export class Comparison {
  #first;
  #panes;
  #calls;
  #together = null;
  #legend = null;
  #pane = null;
  #feed = null;
  #job = null;
  #turn = 0; // of choices: only the last one counts
  choice = element("select", { id: "compare" });
  legendPlace = element("div");

  /** first: the pane that is there. calls: newPane(), follow(job, take) -> feed or null, onChange(), onProblem(problem). */
  constructor(first, panes, calls) {
    this.#first = first;
    this.#panes = panes;
    this.#calls = calls;
    this.choice.append(element("option", { value: "", textContent: "nothing" }));
    this.choice.addEventListener("change", () => this.choose(this.choice.value || null));
  }

  /** Of the other job; null while there is none. */
  get id() {
    return this.#job?.id ?? null;
  }

  /** The other jobs to choose from, those of the same image first. */
  async offer(job) {
    const { jobs } = await readJobs("jobs?limit=200").catch(() => ({ jobs: [] }));
    const others = jobs.filter((other) => other.id !== job.id && other.links.mask_dzi);
    const same = (other) => other.image_id === job.image_id;
    this.#offerGroup("This image", others.filter(same));
    this.#offerGroup("Other images", others.filter((other) => !same(other)));
  }

  #offerGroup(title, jobs) {
    if (jobs.length) this.choice.append(element("optgroup", { label: title }, ...jobs.map(optionOf)));
  }

  /** id: null for none. */
  async choose(id) {
    this.#stop();
    const turn = ++this.#turn;
    try {
      const job = id ? await readJob(id) : null;
      if (job && turn === this.#turn) this.#start(job);
    } catch (problem) {
      this.#calls.onProblem(problem);
    }
    this.choice.value = this.id ?? "";
    this.#calls.onChange();
  }

  #start(job) {
    this.#pane = this.#calls.newPane();
    this.#legend = new Legend(`Classes of ${job.model}`, () => this.#calls.onChange());
    this.#together = new Together(this.#first, this.#pane);
    this.#panes.classList.add("two");
    this.#panes.append(this.#pane.element);
    this.legendPlace.replaceChildren(this.#legend.element);
    setText(this.#pane.title, job.image_id === this.#first.job?.image_id ? job.model : `${job.file_name} · ${job.model}`);
    this.#take(job);
    this.#feed = this.#calls.follow(job, (news) => this.#take(news));
  }

  async #take(job) {
    const pane = this.#pane;
    if (!pane) return;
    this.#job = job;
    this.#legend.show(job);
    await pane.show(job);
    if (pane === this.#pane && this.#first.isOpen && pane.isOpen) this.#together.align();
  }

  look(opacity) {
    if (this.#pane) this.#pane.look = lookOf(opacity, this.#legend);
  }

  /** A pane moved. */
  follow(pane) {
    this.#together?.follow(pane);
  }

  /** The first pane is moved by something other than a hand on it. */
  lead() {
    this.#together?.lead(this.#first);
  }

  #stop() {
    this.#feed?.close();
    this.#pane?.close();
    this.#pane?.element.remove();
    this.#pane = this.#legend = this.#together = this.#feed = this.#job = null;
    this.#panes.classList.remove("two");
    this.legendPlace.replaceChildren();
  }

  close() {
    this.#turn += 1;
    this.#stop();
  }
}

function optionOf(job) {
  const words = `${job.file_name} · ${job.model}${isFinal(job) ? "" : " (running)"}`;
  return element("option", { value: job.id, textContent: words });
}
