// The jobs, newest first, each with its progress as it is made.

import { cancelJob, isFinal, readJobs } from "./api.js";
import { button, byId, element, progressBar, say, setProgress, setText, showProblem } from "./elements.js";
import { ago, count, duration, figure, size } from "./figures.js";
import { imageFormat, thumbnail } from "./pyramid.js";

const STATES = { queued: "Queued", running: "Running", succeeded: "Done", failed: "Failed", cancelled: "Cancelled" };
const STAGES = { ingest: "Reading the image", segment: "Segmenting", assemble: "Putting the mask together" };

/** What a job does, in words. */
export function progressWords(job) {
  if (job.state === "queued") return "Waiting for a worker";
  if (job.state === "succeeded") return tookWords(job);
  if (job.state !== "running") return "";
  const parts = [`${STAGES[job.stage]} ${Math.floor(job.percent)}%`];
  const { done, skipped, total } = job.regions;
  if (job.stage === "segment" && total) parts.push(`${count(done + skipped)} of ${count(total)} regions`);
  if (job.rate_mp_per_s) parts.push(`${figure(job.rate_mp_per_s)} MP/s`);
  if (job.eta_s) parts.push(`${duration(job.eta_s)} left`);
  return parts.join(" · ");
}

function tookWords(job) {
  const seconds = (new Date(job.finished_at) - new Date(job.started_at ?? job.created_at)) / 1000;
  const skipped = job.regions.skipped ? ` · ${count(job.regions.skipped)} regions skipped` : "";
  return `Took ${duration(seconds)}${skipped}`;
}

export const stateWord = (job) => STATES[job.state];

export class Queue {
  #list = byId("jobs");
  #rows = new Map();
  #next = undefined; // the link to older jobs; null where there are none
  #onSeen;

  /** onSeen(job): a job is new or has changed. */
  constructor(onSeen) {
    this.#onSeen = onSeen;
    byId("older").addEventListener("click", () => this.#showOlder());
    setInterval(() => this.#rows.forEach((row) => row.tellAge()), 30000);
  }

  /** Asks for the newest; what is older stays as it was. Raises Problem. */
  async refresh() {
    try {
      const { jobs, next } = await readJobs();
      jobs.reverse().forEach((job) => this.update(job));
      this.#next = this.#next === undefined ? next : this.#next;
      showProblem(byId("queue-problem"), null);
      this.#tell();
    } catch (problem) {
      showProblem(byId("queue-problem"), problem);
      throw problem;
    }
  }

  update(job) {
    const known = this.#rows.get(job.id);
    if (known) this.#announce(known.job, job);
    const row = known ?? this.#insert(job);
    row.show(job);
    this.#onSeen(job);
    this.#tell();
  }

  #insert(job) {
    const row = new JobRow(job);
    const after = [...this.#rows.values()].filter((other) => other.job.created_at < job.created_at);
    const next = after.sort((a, b) => (a.job.created_at < b.job.created_at ? 1 : -1))[0];
    this.#list.insertBefore(row.element, next?.element ?? null);
    this.#rows.set(job.id, row);
    return row;
  }

  async #showOlder() {
    if (!this.#next) return;
    try {
      const { jobs, next } = await readJobs(this.#next);
      jobs.forEach((job) => this.update(job));
      this.#next = next;
      this.#tell();
    } catch (problem) {
      showProblem(byId("queue-problem"), problem);
    }
  }

  #announce(before, job) {
    if (before.state !== job.state) say(`${job.file_name}: ${stateWord(job)}`);
  }

  #tell() {
    byId("queue-empty").hidden = this.#rows.size > 0;
    byId("older").hidden = !this.#next;
    const running = [...this.#rows.values()].filter((row) => !isFinal(row.job)).length;
    setText(byId("queue-count"), running ? `${count(running)} under way` : "");
  }
}

class JobRow {
  job;
  #title = element("a");
  #chip = element("span", { className: "chip" });
  #meta = element("p", { className: "muted job-meta" });
  #age = element("span");
  #facts = element("span");
  #words = element("p", { className: "job-progress" });
  #shares = element("div", { className: "shares", "aria-hidden": "true" });
  #problem = element("div");
  #cancel;
  #thumb = element("a", { className: "thumb", tabIndex: -1, "aria-hidden": "true" });

  constructor(job) {
    this.job = job;
    this.#title.textContent = job.file_name;
    this.#title.href = this.#thumb.href = `#job=${job.id}`;
    this.#meta.append(element("span", { className: "job-model", textContent: job.model }), " · ", this.#facts, this.#age);
    this.bar = progressBar(`Progress of ${job.file_name}`);
    this.#cancel = button("Cancel", () => this.#stop(), { className: "small", "aria-label": `Cancel ${job.file_name}` });
    const head = element("div", { className: "job-head" }, element("h3", {}, this.#title), this.#chip);
    const main = element("div", { className: "job-main" }, head, this.#meta, this.bar, this.#words, this.#shares, this.#problem);
    this.element = element("li", { className: "job" }, this.#thumb, main, element("div", { className: "job-actions" }, this.#cancel));
  }

  show(job) {
    this.job = job;
    this.element.dataset.state = job.state;
    setText(this.#chip, stateWord(job));
    this.#chip.dataset.state = job.state;
    setText(this.#facts, job.image ? `${size(job.image)} · ` : "");
    this.tellAge();
    setProgress(this.bar, job.percent);
    this.bar.hidden = isFinal(job);
    setText(this.#words, progressWords(job));
    this.#words.hidden = !this.#words.textContent;
    this.#cancel.hidden = isFinal(job);
    if (job.error || !this.#problem.dataset.own) showProblem(this.#problem, job.error);
    showShares(this.#shares, job.areas);
    this.#showThumbnail(job);
  }

  tellAge() {
    setText(this.#age, ago(this.job.created_at));
  }

  #showThumbnail(job) {
    if (!job.links.image_dzi || !job.image) return;
    const picture = (link, format, query) => thumbnail(job.links[link], job.image, format, query);
    const mark = job.state === "succeeded" ? "" : `?v=${job.regions.done}`;
    const wanted = [picture("image_dzi", imageFormat(job.image), "")];
    if (job.links.mask_dzi) wanted.push(picture("mask_dzi", "png", mark));
    const shown = [...this.#thumb.children].map((image) => image.src);
    if (wanted.every((src, i) => src === shown[i])) return;
    if (shown.length && !isFinal(job)) return; // tiles are for the viewer while there is work to do
    this.#thumb.replaceChildren(...wanted.map((src) => element("img", { src, alt: "", loading: "lazy", decoding: "async" })));
  }

  async #stop() {
    this.#cancel.disabled = true;
    try {
      this.show(await cancelJob(this.job.id));
      this.#title.focus();
      say(`${this.job.file_name} is cancelled`);
    } catch (problem) {
      this.#problem.dataset.own = "yes";
      showProblem(this.#problem, problem);
    } finally {
      this.#cancel.disabled = false;
    }
  }
}

/** One bar of all classes, each as wide as its share. */
function showShares(place, areas) {
  const sum = areas.reduce((total, entry) => total + entry.px, 0);
  place.hidden = !sum;
  if (!sum) return;
  while (place.children.length < areas.length) place.append(element("span"));
  areas.forEach((entry, i) => {
    const { style } = place.children[i];
    style.setProperty("flex-grow", String(entry.px / sum));
    style.setProperty("background-color", entry.color);
  });
}
