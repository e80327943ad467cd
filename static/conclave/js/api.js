// Calls of the HTTP API: with the CSRF token, a time-out, and errors that say what happened.

const ANSWER_MS = 8_000;

// `status` 0: no answer came, so what was asked may or may not have happened. `code` is the API's short word.
export class ApiError extends Error {
  constructor(status, code, message, body = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.body = body;
  }

  // Whether asking again may help: nothing was reached, or what was reached has no leader now.
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export class Api {
  // `onSignedInAgain()`: the person has signed in anew while this page was open, and it goes on.
  constructor(base, { csrf, user, onSignedInAgain }) {
    this.base = base;
    this.csrf = csrf;
    this.user = user;
    this.onSignedInAgain = onSignedInAgain;
  }

  async call(method, path, body, options = {}) {
    try {
      return await this.ask(method, path, body, options);
    } catch (error) {
      if (error.code !== "csrf-failed" || !(await this.renewCsrf())) throw error;
      return this.ask(method, path, body, options);
    }
  }

  // To sign in, in another tab too, makes the CSRF token of each open page an old one. This page's own address has the
  // new one. Resolves to whether it is had: not where somebody else signed in.
  async renewCsrf() {
    try {
      const response = await fetch(location.pathname, { redirect: "error", signal: AbortSignal.timeout(ANSWER_MS) });
      const page = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("main");
      if (page?.dataset.user !== this.user) return false;
      this.csrf = page.dataset.csrf;
    } catch {
      return false;
    }
    this.onSignedInAgain();
    return true;
  }

  async ask(method, path, body, { answerMs = ANSWER_MS, signal }) {
    const limit = AbortSignal.timeout(answerMs);
    let response;
    let text;
    try {
      response = await fetch(this.base + path, {
        method,
        headers: { "Content-Type": "application/json", "X-CSRFToken": this.csrf, Accept: "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "same-origin",
        redirect: "error",
        signal: signal ? AbortSignal.any([limit, signal]) : limit,
      });
      text = await response.text();
    } catch {
      if (signal?.aborted) throw new ApiError(0, "given-up", "Given up.");
      const why = limit.aborted ? `No answer came within ${Math.round(answerMs / 1000)} s.` : "The web process cannot be reached.";
      throw new ApiError(0, "unreachable", why);
    }
    const answer = parsed(text);
    if (response.ok) return answer;
    throw new ApiError(response.status, answer.error ?? "refused", sentence(response.status, answer), answer);
  }

  openSession(ttlMs) {
    return this.call("POST", "/sessions", { ttl_ms: ttlMs });
  }

  keepAlive(session, answerMs) {
    return this.call("POST", `/sessions/${encodeURIComponent(session)}/keepalive`, undefined, { answerMs });
  }

  closeSession(session) {
    return this.call("DELETE", `/sessions/${encodeURIComponent(session)}`);
  }

  acquire(name, session, waitMs, signal) {
    const path = `/locks/${inPath(name)}/acquire`;
    return this.call("POST", path, { session, wait_ms: waitMs }, { answerMs: waitMs + ANSWER_MS, signal });
  }

  release(name, session) {
    return this.call("POST", `/locks/${inPath(name)}/release`, { session });
  }

  rebuild() {
    return this.call("POST", "/membership/rebuild");
  }

  crash(node, reason) {
    return this.call("POST", `/nodes/${encodeURIComponent(node)}/crash`, { reason });
  }
}

// A browser takes "." and ".." out of an address, however they are encoded. One leading slash is no part of a name.
function inPath(name) {
  return (name === "." || name === ".." ? "%2F" : "") + encodeURIComponent(name);
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : {};
  } catch {
    return {};
  }
}

function sentence(status, answer) {
  if (status === 401) return "You are signed out. Sign in again, and this goes on.";
  if (answer.error === "csrf-failed") return "This page is older than your sign-in. Load it again.";
  if (typeof answer.detail !== "string" || !answer.detail) return `The web process answered ${status}.`;
  const text = answer.detail.charAt(0).toUpperCase() + answer.detail.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
