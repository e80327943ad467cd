// The table of replicas: the numbers of the algorithm, each as its node reports it. Also what was dropped, where it was.

import { KeyedList, byId, el, setAttribute, setClass, setText } from "./dom.js";
import { number, plural } from "./format.js";
import { inWords, isSilent, kindOf } from "./roles.js";

const LARGE = 1_000_000; // Indices from here on need more room than a column has.

function makeRow(node) {
  const cell = (label, cls = "number") => el("td", { role: "cell", class: cls, "data-label": label });
  const cells = {
    role: el("span", { class: "sub role" }),
    term: cell("term"),
    vote: cell("vote", "vote"),
    last: cell("last"),
    commit: cell("commit"),
    applied: cell("applied"),
  };
  const head = el("th", { role: "rowheader", scope: "row" }, el("strong", {}, node), cells.role);
  const row = el("tr", { role: "row", "data-testid": `replica-${node}` }, head, cells.term, cells.vote, cells.last, cells.commit, cells.applied);
  return { node: row, cells };
}

export class Replicas {
  constructor() {
    this.list = new KeyedList(byId("members"), ([node]) => makeRow(node));
    this.table = byId("members-table");
    this.counts = byId("feed-counts");
  }

  render(view, clockMs) {
    const rows = Object.entries(view.replicas).sort(([a], [b]) => (a < b ? -1 : 1));
    this.list.render(rows, ([node]) => node, (part, [node, replica]) => {
      setAttribute(part.node, "data-role", kindOf(replica));
      setAttribute(part.node, "data-term", replica.term ?? "");
      setClass(part.node, "is-stale", isSilent(replica));
      setText(part.cells.role, inWords(replica, view, clockMs));
      setText(part.cells.term, number(replica.term));
      setText(part.cells.vote, replica.vote || "–");
      for (const name of ["last", "commit", "applied"]) setText(part.cells[name], number(replica[name]));
    });
    setClass(this.table, "is-roomy", view.cluster.commit_index >= LARGE);
    setText(this.counts, counts(view));
  }
}

// Packets that a node or this page's server did not take; nothing is said while there are none.
function counts(view) {
  const sum = (drops) => Object.values(drops).reduce((total, count) => total + count, 0);
  const words = [];
  for (const [node, { drops }] of Object.entries(view.replicas)) {
    const reasons = Object.entries(drops).filter(([, count]) => count > 0);
    if (reasons.length) {
      const why = reasons.map(([reason, count]) => `${reason} ${number(count)}`).join(", ");
      words.push(`${node} dropped ${plural(sum(drops), "packet")} (${why})`);
    }
  }
  const dropped = sum(view.feed.dropped);
  if (dropped) words.push(`this page's server dropped ${plural(dropped, "report")}`);
  if (view.feed.lost) words.push(`${plural(view.feed.lost, "report")} lost on the way`);
  return words.length ? `${words.join(" · ")}.` : "";
}
