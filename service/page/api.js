// The service over HTTP. Every refusal is a Problem with the server's own detail and code (RFC 9457).

/** Where the service is: the folder of this page, so that it works behind a proxy's prefix too. */
export const ROOT = new URL("./", location.href.split("#")[0]);

export class Problem extends Error {
  constructor(status, code, detail, document = {}) {
    super(detail);
    Object.assign(this, { status, code, detail, document });
  }
}

export const urlOf = (path) => new URL(path, ROOT);

/** The answer, whatever its success status. Raises Problem, or DOMException(AbortError). */
export async function ask(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  let answer;
  try {
    answer = await fetch(urlOf(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The service does not answer. What is under way goes on without this page.");
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const said = await answer.json().catch(() => ({}));
  const detail = said.detail ?? said.title ?? `the service answered ${answer.status} ${answer.statusText}`;
  return new Problem(answer.status, said.code ?? `http_${answer.status}`, detail, said);
}

const read = async (path, options) => (await ask(path, options)).json();

function sent(value) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

/** {jobs, next}; path: `next` of the page before. */
export const readJobs = (path = "jobs") => read(path);
export const readJob = (id, signal) => read(`jobs/${encodeURIComponent(id)}`, { signal });
export const cancelJob = (id) => read(`jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
export const readModels = () => read("models");
/** request: {upload | image, model, options}; answers the job. */
export const segment = (request) => read("segment", sent(request));
export const readLabel = (id, x, y, signal) => read(`jobs/${encodeURIComponent(id)}/label?x=${x}&y=${y}`, { signal });
/** link: one of a job's `links`. */
export const readLink = (link, signal) => read(link, { signal });

export const isFinal = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);
