// The page: the queue with its form, or one result. The address's fragment says which.

import { byId, setText } from "./elements.js";
import { Feed } from "./feed.js";
import { parseView } from "./permalink.js";
import { Queue } from "./queue.js";
import { Result } from "./result.js";
import { Shortcuts } from "./shortcuts.js";
import { Submission } from "./submission.js";
import { installTheme } from "./theme.js";
import { UploadList } from "./uploads.js";

const FEED_WORDS = { live: "Live", polling: "Polling", offline: "No connection", connecting: "Connecting", over: "" };

const submission = new Submission({ upload: (file, request) => uploads.add(file, request), onJob: (job) => queue.update(job) });
const queue = new Queue((job) => submission.learn(job));
const uploads = new UploadList(byId("uploads"), { onJob: (job) => queue.update(job), asked: () => submission.request });
const feed = new Feed("events", { onJob: (job) => queue.update(job), poll: () => queue.refresh(), onState: tellFeed });
const shortcuts = new Shortcuts();

let result = null;
let opened = null; // the id of the job that `result` shows

function tellFeed(state) {
  const before = byId("feed-state").dataset.state;
  if (before === "offline" && state !== "offline" && !result) submission.refreshModels();
  byId("feed-state").dataset.state = state;
  setText(byId("feed-state"), FEED_WORDS[state]);
}

function showHome() {
  result?.close();
  result = opened = null;
  byId("result").hidden = true;
  byId("result").replaceChildren();
  byId("home").hidden = false;
  document.body.classList.remove("with-result");
  document.title = "Gigamask";
  submission.refreshModels();
  queue.refresh().catch(() => {});
  feed.open();
}

function showResult(view) {
  feed.close();
  result?.close();
  byId("home").hidden = true;
  byId("result").hidden = false;
  document.body.classList.add("with-result");
  opened = view.job;
  result = new Result(byId("result"), view, { onState: tellFeed, onAgain: segmentAgain });
}

function route() {
  const view = parseView(location.hash);
  if (!view.job) showHome();
  else if (view.job === opened) result.apply(view);
  else showResult(view);
}

function segmentAgain(job) {
  location.hash = "";
  showHome();
  submission.useImage(job);
}

/** Only where a result is open. */
const inResult = (act) => () => (result ? act(result) : false);

function installShortcuts() {
  shortcuts.tell("← → ↑ ↓", "Move the image (Shift: farther)");
  shortcuts.tell("+ −", "Zoom");
  shortcuts.tell("0", "The whole image");
  shortcuts.add("v", "To the image", inResult((open) => open.focusPane()));
  shortcuts.add("m", "Mask on and off", inResult((open) => open.toggleMask()));
  shortcuts.add("[", null, inResult((open) => open.changeOpacity(-0.1)));
  shortcuts.add("]", null, inResult((open) => open.changeOpacity(0.1)));
  shortcuts.tell("[ ]", "Mask less or more opaque");
  for (let i = 0; i < 9; i += 1) shortcuts.add(String(i + 1), null, inResult((open) => open.toggleClass(i)));
  shortcuts.tell("1 … 9", "A class on and off");
  shortcuts.add("c", "Compare with another result", inResult((open) => open.chooseCompared()));
  shortcuts.add("n", "Choose a file", () => (result ? false : submission.chooseFile()));
  shortcuts.add("Escape", "Back to the jobs", inResult(() => (location.hash = "")));
}

installTheme(byId("theme"));
installShortcuts();
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", route);
tellFeed("connecting");
uploads.showUnfinished(() => submission.chooseFile()).catch(() => {});
route();
