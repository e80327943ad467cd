// The page's own sessions: one for each time to live, kept alive while the page is open, and over its reloads.
//
// A lease counts from when the keep-alive that the cluster answered was *sent*. While no answer comes, the page goes on
// asking: only the cluster knows whether the session still lives, and only its word ends it here.

const RETRY_MS_MIN = 150;
const RETRY_MS_MAX = 1_000;
const ANSWER_MS_MIN = 500;
const ANSWER_MS_MAX = 4_000;
const SIGNED_OUT_RETRY_MS = 2_000;
const CLAIM_MS = 1_500;

// What has passed is told by whichever clock went further: the monotonic one may stand still while the machine is
// suspended, and the other may be set back.
const moment = (agoMs = 0) => ({ ms: performance.now() - agoMs, wallMs: Date.now() - agoMs });
const passedMs = (since) => Math.max(performance.now() - since.ms, Date.now() - since.wallMs);

export class Sessions {
  // `onGone(session, why)`: the cluster said that it has ended. `onChange()`: something worth saving or showing.
  constructor(api, { onGone, onChange }) {
    this.api = api;
    this.handlers = { onGone, onChange };
    this.all = new Map();
    this.opening = new Map();
    this.claims = new Map();
  }

  has(session) {
    return this.all.has(session);
  }

  // The session with this time to live; opened where there is none.
  async of(ttlMs) {
    for (const known of this.all.values()) if (known.ttlMs === ttlMs) return known.session;
    if (!this.opening.has(ttlMs)) {
      this.opening.set(ttlMs, this.open(ttlMs).finally(() => this.opening.delete(ttlMs)));
    }
    return this.opening.get(ttlMs);
  }

  async open(ttlMs) {
    const sent = moment();
    const { session } = await this.api.openSession(ttlMs);
    await this.claim(session);
    this.add(session, ttlMs, sent);
    this.handlers.onChange();
    return session;
  }

  // `ok`: when that was sent which the cluster answered last. It is asked again `restMs` after `asked`.
  add(session, ttlMs, ok, restMs = ttlMs / 3) {
    this.all.set(session, { session, ttlMs, ok, asked: ok, restMs, asking: null, isFailing: false });
  }

  // A tab that was duplicated brings a copy of the first one's sessions: only one of the two may go on with them.
  claim(session) {
    if (!navigator.locks) return Promise.resolve(true);
    return new Promise((resolve) => {
      const held = new Promise((release) => this.claims.set(session, release));
      const claimed = () => {
        resolve(true);
        return held;
      };
      navigator.locks
        .request(`conclave.session.${session}`, { signal: AbortSignal.timeout(CLAIM_MS) }, claimed)
        .catch(() => resolve(false));
    });
  }

  // Sessions of this page's life before a reload. Those that another tab goes on with are left to it.
  async restore(saved) {
    for (const { session, ttl_ms: ttlMs, ok_wall_ms: okWallMs } of saved) {
      if (!(await this.claim(session))) continue;
      this.add(session, ttlMs, moment(Math.max(0, Date.now() - okWallMs)), 0);
    }
  }

  saved() {
    return [...this.all.values()].map((known) => ({
      session: known.session,
      ttl_ms: known.ttlMs,
      ok_wall_ms: Math.round(Date.now() - passedMs(known.ok)),
    }));
  }

  // Called often: asks for those that are due.
  tick() {
    for (const known of this.all.values()) {
      if (!known.asking && passedMs(known.asked) >= known.restMs) this.renew(known.session);
    }
  }

  // One keep-alive now. Resolves to whether the session is known to live.
  renew(session) {
    const known = this.all.get(session);
    if (!known) return Promise.resolve(false);
    known.asking ??= this.ask(known).finally(() => {
      known.asking = null;
    });
    return known.asking;
  }

  async ask(known) {
    const { session } = known;
    const sent = moment();
    try {
      await this.api.keepAlive(session, Math.min(ANSWER_MS_MAX, Math.max(ANSWER_MS_MIN, known.ttlMs / 3)));
      Object.assign(known, { ok: sent, asked: sent, restMs: known.ttlMs / 3, isFailing: false });
      this.handlers.onChange();
      return true;
    } catch (error) {
      if (error.status === 410) this.end(session, error.message);
      else this.failed(known, error);
      return false;
    }
  }

  failed(known, error) {
    const retryMs = Math.min(RETRY_MS_MAX, Math.max(RETRY_MS_MIN, known.ttlMs / 12));
    Object.assign(known, { asked: moment(), restMs: error.isPassing ? retryMs : SIGNED_OUT_RETRY_MS, isFailing: true });
    this.handlers.onChange();
  }

  end(session, why) {
    if (!this.forget(session)) return;
    this.handlers.onGone(session, why);
  }

  // No longer this page's: it is not kept alive any more.
  forget(session) {
    this.claims.get(session)?.();
    this.claims.delete(session);
    return this.all.delete(session);
  }

  // What is wrong with a session's lease at this moment, in words; "" where nothing is.
  trouble(session) {
    const known = this.all.get(session);
    if (!known) return "";
    const leftMs = known.ttlMs - passedMs(known.ok);
    if (leftMs > 0 && !known.isFailing) return "";
    if (leftMs > 0) return `not renewed yet, asking again; proven for ${(leftMs / 1000).toFixed(1)} s more`;
    return "not proven held: no answer since its lease ran out; asking again";
  }
}
