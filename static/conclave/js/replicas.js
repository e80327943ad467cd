// The table of replicas: the numbers of the algorithm, each as its node reports it. Also what was dropped, where it was.

import { KeyedList, byId, el, setAttribute, setClass, setText } from "./dom.js";
import { number, plural } from "./format.js";
import { inWords, isSilent, kindOf } from "./roles.js";

function makeRow(node) {
  const cells = {
    role: el("span", { class: "sub role" }),
    term: el("td", { class: "number" }),
    vote: el("td"),
    last: el("td", { class: "number" }),
    commit: el("td", { class: "number" }),
    applied: el("td", { class: "number" }),
  };
  const head = el("th", { scope: "row" }, el("strong", {}, node), cells.role);
  const row = el("tr", { "data-testid": `replica-${node}` }, head, cells.term, cells.vote, cells.last, cells.commit, cells.applied);
  return { node: row, cells };
}

export class Replicas {
  constructor() {
    this.list = new KeyedList(byId("members"), ([node]) => makeRow(node));
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
