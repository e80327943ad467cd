// What the page knows: the view as last told, its number, and the feed reader's clock. Pure but for the clock's reading.

const CLOCK_SLACK_MS = 300;

// The keys of a section are names that people gave, "__proto__" and "constructor" too: it inherits nothing.
const noRows = () => Object.create(null);

export class LiveState {
  constructor() {
    this.view = null;
    this.number = 0;
    this.awaitsSnapshot = true;
    this.offsetMs = null;
  }

  // Takes one message in. "changed": draw; "gap": changes are missing, ask for a snapshot; "ignored": it waits for one.
  take(message, nowMs) {
    if (message.type === "snapshot") {
      const sections = Object.entries(message.view);
      this.view = Object.fromEntries(sections.map(([section, rows]) => [section, Object.assign(noRows(), rows)]));
      this.number = message.number;
      this.awaitsSnapshot = false;
      this.setClock(message.clock_ms, nowMs);
      return "changed";
    }
    if (message.type !== "change" || this.awaitsSnapshot) return "ignored";
    if (message.number !== this.number + 1) {
      this.awaitsSnapshot = true;
      return "gap";
    }
    this.number = message.number;
    this.setClock(message.clock_ms, nowMs);
    for (const [section, keys] of Object.entries(message.gone)) {
      for (const key of keys) delete this.view[section][key];
    }
    for (const [section, rows] of Object.entries(message.set)) {
      this.view[section] = Object.assign(this.view[section] ?? noRows(), rows);
    }
    return "changed";
  }

  // A new connection begins with a snapshot; what is shown until then is what was known.
  forgetNumber() {
    this.awaitsSnapshot = true;
    this.offsetMs = null;
  }

  // The message that came with the least delay tells the two clocks apart best.
  setClock(clockMs, nowMs) {
    const offset = clockMs - nowMs;
    if (this.offsetMs === null || offset > this.offsetMs || this.offsetMs - offset > CLOCK_SLACK_MS) this.offsetMs = offset;
  }

  // The feed reader's clock now.
  clock(nowMs) {
    return nowMs + (this.offsetMs ?? 0);
  }
}
