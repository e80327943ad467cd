// The history of elections, newest first: when, who won which term, how it began, votes, how long callers waited.
// While nobody leads, who stands comes first.

import { KeyedList, byId, el, setAttribute, setText } from "./dom.js";
import { dayAndTime, number, termClass, timeOfDay, wait } from "./format.js";

const SHOWN = 4;

function makeItem() {
  const part = {
    time: el("time"),
    title: el("p", { class: "title" }),
    why: el("p", { class: "why" }),
    how: el("p", { class: "how" }),
  };
  part.node = el("li", {}, part.time, el("span", { class: "spot", "aria-hidden": "true" }), el("div", {}, part.title, part.why, part.how));
  return part;
}

// An election under way, as the replicas' own roles tell it.
function running(view) {
  if (view.cluster.leader) return [];
  const standing = Object.entries(view.replicas).filter(([, { role }]) => role === "candidate" || role === "pre-candidate");
  if (!standing.length) return [];
  const [node, { role, term }] = standing.sort(([, a], [, b]) => b.term - a.term)[0];
  const title = role === "candidate" ? `${node} asks for votes in term ${number(term)}` : `${node} asks whether it may stand`;
  return [{ key: "running", term: Math.max(term, 1), title, why: "An election is under way.", how: "", at_ms: null }];
}

function told(election) {
  const votes = election.votes > 0 ? `${election.votes} of ${election.voters} votes` : "";
  const waited = election.votes > 0 && election.waited_ms > 0 ? `callers waited ${wait(election.waited_ms)}` : "";
  return {
    key: String(election.term),
    term: election.term,
    title: `${election.leader} won term ${number(election.term)}`,
    why: election.reason,
    how: [votes, waited].filter(Boolean).join(" · "),
    at_ms: election.at_ms,
  };
}

export class Elections {
  constructor() {
    this.list = new KeyedList(byId("elections"), makeItem);
    this.more = byId("elections-more");
    this.isOpen = false;
    this.more.addEventListener("click", () => {
      this.isOpen = !this.isOpen;
      if (this.view) this.render(this.view);
    });
  }

  render(view) {
    this.view = view;
    const past = Object.values(view.elections).sort((a, b) => b.term - a.term).map(told);
    const items = [...running(view), ...(this.isOpen ? past : past.slice(0, SHOWN))];
    this.list.render(items, ({ key }) => key, (part, item) => this.update(part, item));
    byId("elections-empty").hidden = items.length > 0;
    this.more.hidden = past.length <= SHOWN;
    setText(this.more, this.isOpen ? "Show the latest only" : `Show ${past.length - SHOWN} earlier`);
  }

  update(part, item) {
    const cls = `${termClass(item.term)}${item.key === "running" ? " is-running" : ""}`;
    if (part.node.className !== cls) part.node.className = cls;
    setAttribute(part.node, "data-testid", `election-${item.key}`);
    setText(part.time, item.at_ms ? timeOfDay(item.at_ms) : "now");
    setAttribute(part.time, "datetime", item.at_ms ? new Date(item.at_ms).toISOString() : null);
    setAttribute(part.time, "title", item.at_ms ? dayAndTime(item.at_ms) : null);
    setText(part.title, item.title);
    setText(part.why, item.why);
    setText(part.how, item.how);
  }
}
