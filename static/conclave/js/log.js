// The log grid: the last entries of each replica, the same index in the same column, the newest at the right edge.
// A cell is filled once committed, outlined before, dashed where the replica does not have the entry.

import { byId, el, setAttribute, setClass, setText } from "./dom.js";
import { number, plural, shortIndex, termClass } from "./format.js";
import { inWords, isSilent } from "./roles.js";

const WIDE = { cell: 30, head: 104 };
const NARROW = { cell: 23, head: 72 };
const NARROW_PX = 480;
const CELLS_MIN = 8;
const CELLS_MAX = 24; // As many as a node reports.

export class LogGrid {
  constructor() {
    this.place = byId("log");
    this.pauseButton = byId("log-pause");
    this.paused = null;
    this.rows = new Map();
    this.shape = "";
    this.count = CELLS_MIN;
    this.pauseButton.addEventListener("click", () => this.togglePause());
    new ResizeObserver(([entry]) => this.measure(entry.contentRect.width)).observe(this.place);
  }

  measure(width) {
    const { cell, head } = width < NARROW_PX ? NARROW : WIDE;
    this.count = Math.min(CELLS_MAX, Math.max(CELLS_MIN, Math.floor((width - head + 3) / cell)));
    if (this.view) this.draw(this.view);
  }

  togglePause() {
    this.paused = this.paused ? null : this.view;
    setAttribute(this.pauseButton, "aria-pressed", Boolean(this.paused));
    setText(this.pauseButton, this.paused ? "Resume" : "Pause");
    setText(byId("log-hint"), this.paused ? "paused; the cluster goes on" : "what each replica holds, coloured and numbered by term");
    if (!this.paused && this.latest) this.render(this.latest);
  }

  render(view) {
    this.latest = view;
    if (this.paused) return;
    // Only what the grid shows is kept, as it was: the sections are replaced row by row.
    this.view = { ...view, cluster: { ...view.cluster }, replicas: { ...view.replicas }, log: { ...view.log } };
    this.draw(this.view);
  }

  draw(view) {
    const nodes = Object.keys(view.replicas).sort();
    const newest = Math.max(0, ...nodes.map((node) => view.replicas[node].last ?? 0));
    const first = newest - this.count + 1;
    this.layOut(nodes);
    this.drawHead(first);
    const committed = committedTerms(view);
    for (const node of nodes) this.drawRow(node, view, first, committed);
    setText(byId("committed-to"), view.cluster.commit_index ? `committed, up to ${number(view.cluster.commit_index)}` : "committed");
  }

  layOut(nodes) {
    const shape = `${nodes.join()}/${this.count}`;
    if (shape === this.shape) return;
    this.shape = shape;
    this.rows.clear();
    this.place.style.setProperty("--cells", this.count);
    this.head = Array.from({ length: this.count }, () => el("span", { class: "at" }));
    const rows = nodes.map((node) => {
      const cells = Array.from({ length: this.count }, () => el("span", { class: "cell" }));
      const state = el("span", { class: "sub" });
      const name = el("div", { class: "row-name", "aria-hidden": "true" }, el("strong", {}, node), state);
      const holds = el("div", { class: "cells", role: "img" }, ...cells);
      this.rows.set(node, { cells, state, holds });
      return el("div", { class: "log-row", "data-testid": `log-${node}` }, name, holds);
    });
    const head = el("div", { class: "log-row head", "aria-hidden": "true" }, el("div"), el("div", { class: "cells" }, ...this.head));
    this.place.replaceChildren(head, ...rows);
  }

  drawHead(first) {
    this.head.forEach((cell, place) => {
      const index = first + place;
      const isNamed = index > 0 && (this.count - 1 - place) % 3 === 1;
      setText(cell, isNamed ? shortIndex(index) : "");
    });
  }

  drawRow(node, view, first, committed) {
    const row = this.rows.get(node);
    const replica = view.replicas[node];
    const log = view.log[node] ?? { first: 1, cells: [] };
    const entries = new Map(log.cells.map(([index, term, what]) => [index, { term, what }]));
    row.cells.forEach((cell, place) => drawCell(cell, first + place, entries, log.first, replica, committed));
    setText(row.state, stateText(replica, view));
    setClass(row.holds, "is-stale", isSilent(replica));
    setAttribute(row.holds, "aria-label", told(node, replica, log.cells));
  }
}

// The term of each index that some replica knows to be committed: an entry of another term there is not.
function committedTerms(view) {
  const terms = new Map();
  for (const [node, log] of Object.entries(view.log)) {
    const commit = view.replicas[node]?.commit ?? 0;
    for (const [index, term] of log.cells) if (index <= commit) terms.set(index, term);
  }
  return terms;
}

function drawCell(cell, index, entries, firstKept, replica, committed) {
  const entry = entries.get(index);
  const isCompacted = !entry && index > 0 && index < firstKept && index <= (replica.last ?? 0);
  const isCommitted = Boolean(entry) && committed.get(index) === entry.term;
  const kind = index <= 0 ? "is-nothing" : isCompacted ? "is-compacted" : !entry ? "is-absent" : isCommitted ? "is-committed" : "is-open";
  const cls = entry ? `cell ${kind} ${termClass(entry.term)}` : `cell ${kind}`;
  if (cell.className !== cls) cell.className = cls;
  setText(cell, entry ? String(entry.term) : "");
  setAttribute(cell, "title", entry ? `${number(index)}, term ${entry.term}: ${entry.what}` : null);
}

function stateText(replica, view) {
  if (isSilent(replica)) return replica.last === null ? "not heard" : "as last heard";
  if (replica.role !== "follower") return inWords(replica, view, 0);
  const leader = view.replicas[view.cluster.leader];
  const behind = leader ? leader.last - replica.last : 0;
  return behind > 0 ? `${number(behind)} behind` : "in step";
}

function told(node, replica, cells) {
  if (replica.last === null) return `${node}: not heard yet`;
  const runs = [];
  for (const [, term] of cells) {
    if (runs.at(-1)?.term === term) runs.at(-1).count += 1;
    else runs.push({ term, count: 1 });
  }
  const last = runs.map(({ term, count }) => `${plural(count, "entry", "entries")} of term ${term}`).join(", then ");
  return `${node}: last index ${number(replica.last)}, committed to ${number(replica.commit)}${last ? `; the last ones are ${last}` : ""}`;
}
