// The ten-minute strip of commits a second, and the four figures below it, as the leader reports them.

import { byId, el, setAttribute, setText, svg } from "./dom.js";
import { number, plural, reading } from "./format.js";

const NAMES = [
  ["commits_per_s", "commits a second", ""],
  ["commit_ms_p50", "median commit", " ms"],
  ["commit_ms_p99", "99th percentile", " ms"],
  ["fsync_ms_p50", "median fsync", " ms"],
];
const HEIGHT = 20;
const RECENT_BARS = 12;

export class Figures {
  constructor() {
    this.values = NAMES.map(([, label]) => {
      const value = el("dd");
      byId("figures").append(el("div", {}, el("dt", {}, label), value));
      return value;
    });
    this.old = svg("path", { class: "old" });
    this.recent = svg("path", { class: "recent" });
    this.gaps = svg("path", { class: "gap" });
    byId("strip").append(this.old, this.recent, this.gaps);
    this.drawn = null;
  }

  render(view) {
    NAMES.forEach(([name, , unit], place) => {
      const value = view.figures[name];
      // No time at all was measured where nothing was committed.
      const isKnown = value !== undefined && (value > 0 || unit === "");
      setText(this.values[place], isKnown ? `${reading(value)}${unit}` : "–");
    });
    const { bars, leaderless } = view.history;
    if (this.drawn === bars && this.gapsDrawn === leaderless) return;
    this.drawn = bars;
    this.gapsDrawn = leaderless;
    this.strip(view.history);
  }

  strip({ bars, leaderless, bar_ms: barMs, bars_max: barsMax }) {
    const top = Math.max(1, ...bars.filter((value) => value !== null));
    const offset = barsMax - bars.length;
    const isGap = new Set(leaderless);
    let old = "";
    let recent = "";
    let gap = "";
    bars.forEach((value, place) => {
      const x = offset + place + 0.15;
      if (isGap.has(place)) gap += `M${x} ${HEIGHT}v-3h.7v3z`;
      if (value !== null) {
        const height = Math.max(1, (value / top) * HEIGHT);
        const bar = `M${x} ${HEIGHT}v${-height.toFixed(2)}h.7v${height.toFixed(2)}z`;
        if (place >= bars.length - RECENT_BARS) recent += bar;
        else old += bar;
      }
    });
    setAttribute(this.old, "d", old);
    setAttribute(this.recent, "d", recent);
    setAttribute(this.gaps, "d", gap);
    setText(byId("strip-from"), `−${Math.round((barsMax * barMs) / 60_000)} min`);
    setAttribute(byId("strip"), "aria-label", this.inWords(bars, leaderless, barMs));
  }

  inWords(bars, leaderless, barMs) {
    const known = bars.filter((value) => value !== null);
    if (!known.length) return "Commits a second: nothing known yet";
    const span = plural(Math.round((bars.length * barMs) / 1000), "second");
    const gaps = leaderless.length ? `without a leader in ${plural(leaderless.length, "interval")} of ${barMs / 1000} s` : "never without a leader";
    return `Commits a second over the last ${span}: between ${number(Math.min(...known))} and ${number(Math.max(...known))}, ${gaps}`;
  }
}
