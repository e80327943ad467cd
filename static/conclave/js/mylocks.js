// The locks that this page holds or waits for: taken, kept and let go through the HTTP API, over reloads of the page and
// restarts of the web process. What is shown as held is what the cluster granted to one of the page's own sessions.

import { ApiError } from "./api.js";
import { number } from "./format.js";
import { Sessions } from "./sessions.js";

export const WAITS_MAX = 2; // A browser opens six connections to a server; a wait keeps one of them busy.
export const WAIT_MS = 3_600_000;
const PATIENCE_MS = 15_000; // How long one act is tried again while the web process or a leader is away.
const RETRY_MS = 400;
const SHOWS_UP_MS = 4_000; // A grant must be in the leader's reports after this long.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class MyLocks {
  // `notice(text, isBad)` tells the person; `onChange()` asks for a drawing.
  constructor(api, { key, notice, onChange }) {
    this.key = `conclave.mine.${key}`;
    this.notice = notice;
    this.onChange = onChange;
    this.api = api;
    this.held = new Map(); // name -> { session, token, sinceMs }
    this.waits = new Map(); // name -> { session, controller, untilMs }
    this.released = new Map(); // name -> the token let go last: reports that are older may still show it held
    this.sessions = new Sessions(api, { onGone: (session) => this.gone(session), onChange: () => this.changed() });
  }

  changed() {
    try {
      const locks = [...this.held].map(([name, { session, token }]) => ({ name, session, token }));
      const nowMs = performance.now();
      const waits = [...this.waits].map(([name, { session, untilMs }]) => ({ name, session, left_ms: untilMs - nowMs }));
      sessionStorage.setItem(this.key, JSON.stringify({ sessions: this.sessions.saved(), locks, waits }));
    } catch {
      // Without storage the locks last as long as the page.
    }
    this.onChange();
  }

  async restore() {
    let saved;
    try {
      saved = JSON.parse(sessionStorage.getItem(this.key) ?? "null");
    } catch {
      saved = null;
    }
    if (!Array.isArray(saved?.sessions) || !Array.isArray(saved?.locks)) return;
    await this.sessions.restore(saved.sessions);
    for (const { name, session, token } of saved.locks) {
      if (this.sessions.has(session)) this.held.set(name, { session, token, sinceMs: performance.now() });
    }
    for (const { name, session, left_ms: leftMs } of saved.waits ?? []) {
      if (this.sessions.has(session) && !this.waits.has(name)) this.wait(name, session, leftMs);
    }
    this.changed();
  }

  isMine(holder) {
    return this.sessions.has(holder.session);
  }

  // --- acts: each resolves when done, or rejects with an ApiError that says why not ---

  // Takes `name` now, or stands in line for it. Resolves to whether it is held.
  async take(name, ttlMs, isWaiting, isSecondTry = false) {
    if (isWaiting && this.waits.size >= WAITS_MAX) {
      throw new ApiError(429, "busy", `This page waits in ${WAITS_MAX} lines already. Leave one of them first.`);
    }
    const session = await this.patiently(() => this.sessions.of(ttlMs));
    if (isWaiting) {
      this.wait(name, session);
      return false;
    }
    try {
      const grant = await this.patiently(() => this.api.acquire(name, session, 0));
      this.granted(name, session, grant.token);
      return true;
    } catch (error) {
      this.dropIfIdle(session);
      if (error.status !== 410 || isSecondTry) throw error;
      this.sessions.end(session, error.message);
      return this.take(name, ttlMs, isWaiting, true);
    }
  }

  // A page that is loaded again stands in line again: in its old place where it is there before the other call is missed.
  async wait(name, session, leftMs = WAIT_MS) {
    const controller = new AbortController();
    const line = { session, controller, untilMs: performance.now() + leftMs };
    this.waits.set(name, line);
    this.changed();
    try {
      const grant = await this.patiently(
        () => this.api.acquire(name, session, Math.max(0, Math.round(line.untilMs - performance.now())), controller.signal),
        line.untilMs,
      );
      this.granted(name, session, grant.token);
      this.notice(`${name} is yours, with token ${number(grant.token)}.`);
    } catch (error) {
      if (error.code !== "given-up") this.notice(`You no longer wait for ${name}: ${error.message}`, true);
    } finally {
      if (this.waits.get(name) === line) this.waits.delete(name);
      this.dropIfIdle(session);
      this.changed();
    }
  }

  leave(name) {
    this.waits.get(name)?.controller.abort();
  }

  async release(name) {
    const { session, token } = this.held.get(name);
    try {
      await this.patiently(() => this.api.release(name, session));
    } catch (error) {
      if (![404, 409, 410].includes(error.status)) throw error;
      this.notice(`${name} was no longer held: ${error.message}`, true);
    }
    this.released.set(name, token);
    this.held.delete(name);
    this.dropIfIdle(session);
    this.changed();
  }

  async renew(name) {
    return this.sessions.renew(this.held.get(name).session);
  }

  // Asking again is safe: a session has one acquisition a name, and the same answer comes back.
  async patiently(act, untilMs = performance.now() + PATIENCE_MS) {
    for (;;) {
      try {
        return await act();
      } catch (error) {
        if (!error.isPassing || error.code === "given-up" || performance.now() + RETRY_MS > untilMs) throw error;
        await pause(RETRY_MS);
      }
    }
  }

  granted(name, session, token) {
    this.held.set(name, { session, token, sinceMs: performance.now() });
    this.changed();
  }

  dropIfIdle(session) {
    const isUsed = [...this.held.values(), ...this.waits.values()].some((lock) => lock.session === session);
    if (isUsed || !this.sessions.forget(session)) return;
    this.api.closeSession(session).catch(() => {}); // It ends by itself otherwise.
    this.changed();
  }

  // --- news ---

  gone(session) {
    const lost = [...this.held].filter(([, lock]) => lock.session === session).map(([name]) => name);
    for (const name of lost) this.held.delete(name);
    const waited = [...this.waits].filter(([, line]) => line.session === session && !line.controller.signal.aborted);
    for (const [, line] of waited) line.controller.abort();
    const names = waited.map(([name]) => name).join(", ");
    if (names) this.notice(`You no longer wait for ${names}: the session ended before it could be renewed.`, true);
    if (lost.length) this.notice(`Lost: ${lost.join(", ")}. The session ended before it could be renewed.`, true);
    this.changed();
  }

  // What the leader reports is the truth about who holds what.
  observe(view, nowMs) {
    if (!view.lock_totals.counting) return;
    const isWhole = view.lock_totals.held <= Object.keys(view.locks).length;
    for (const [name, { session, token, sinceMs }] of this.held) {
      const row = view.locks[name];
      const isGone = row ? row.holder.session !== session && row.token > token : isWhole && nowMs - sinceMs > SHOWS_UP_MS;
      if (!isGone) continue;
      this.held.delete(name);
      this.notice(`Lost: ${name} is no longer yours.`, true);
      this.changed();
    }
    for (const [name, row] of Object.entries(view.locks)) {
      const isNews = row.token > Math.max(this.held.get(name)?.token ?? 0, this.released.get(name) ?? 0);
      if (isNews && this.isMine(row.holder)) this.granted(name, row.holder.session, row.token);
    }
  }
}
