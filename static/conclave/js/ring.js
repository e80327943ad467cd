// The ring of replicas: who leads, who follows, who is silent; entries and votes travel as dots when reports show that they
// arrived. What no report says is not drawn. The table below the ring says the same in words.

import { motionAllowed, setAttribute, setClass, setText, svg } from "./dom.js";
import { number, plural, shortIndex } from "./format.js";
import { inWords, kindOf } from "./roles.js";

const WIDTH = 340;
const CENTRE = { x: 170, y: 152 };
const FLIGHT_MS = 1_100;

export class Ring {
  // `onCrash(node)` is called where the person picks a replica that may be crashed.
  constructor(place, { onCrash, mayCrash }) {
    this.onCrash = onCrash;
    this.mayCrash = mayCrash;
    this.parts = new Map();
    this.before = new Map();
    this.names = "";
    this.svg = svg("svg", { role: "group", "aria-label": "Ring of replicas, as the table below lists them" });
    this.orbit = svg("circle", { class: "orbit" });
    this.lines = svg("g", { class: "lines" });
    this.dots = svg("g", { class: "dots", "aria-hidden": "true" });
    this.nodes = svg("g");
    this.termWord = svg("text", { class: "term-word", x: CENTRE.x, y: CENTRE.y - 6, "text-anchor": "middle" }, "term");
    this.term = svg("text", { class: "term-number", x: CENTRE.x, y: CENTRE.y + 18, "text-anchor": "middle" });
    this.svg.append(this.orbit, this.lines, this.termWord, this.term, this.dots, this.nodes);
    place.append(this.svg);
  }

  layOut(names) {
    this.names = names.join();
    this.nodes.replaceChildren();
    this.lines.replaceChildren();
    this.parts.clear();
    const count = names.length;
    this.size = count <= 5 ? 36 : 30;
    const radius = count === 1 ? 0 : 96;
    for (const [name, value] of Object.entries({ cx: CENTRE.x, cy: CENTRE.y, r: radius })) this.orbit.setAttribute(name, value);
    names.forEach((node, place) => {
      const angle = (Math.PI / 180) * (-90 + (place - (count - 1) / 2) * (360 / count));
      this.parts.set(node, this.makeNode(node, CENTRE.x + radius * Math.cos(angle), CENTRE.y + radius * Math.sin(angle)));
    });
    const bottom = Math.max(CENTRE.y + radius, ...[...this.parts.values()].map(({ y }) => y + this.size));
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${bottom + 8}`);
    this.termWord.toggleAttribute("hidden", count === 1);
    this.term.toggleAttribute("hidden", count === 1);
  }

  makeNode(node, x, y) {
    const line = svg("line", { x1: x, y1: y, x2: x, y2: y });
    const text = (cls, dy, content = "") => svg("text", { class: cls, x, y: y + dy, "text-anchor": "middle" }, content);
    const group = svg("g", { class: "node" });
    const role = text("role", 5);
    const index = text("index", 18.5);
    group.append(
      svg("circle", { class: "halo", cx: x, cy: y, r: this.size + 4 }),
      svg("circle", { class: "body", cx: x, cy: y, r: this.size }),
      text("name", -8.5, node),
      role,
      index,
    );
    const act = () => group.hasAttribute("tabindex") && this.onCrash(node);
    group.addEventListener("click", act);
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act();
    });
    this.lines.append(line);
    this.nodes.append(group);
    return { x, y, line, group, role, index, flying: false, pending: 0 };
  }

  render(view, clockMs) {
    const names = Object.keys(view.replicas).sort();
    if (names.join() !== this.names) this.layOut(names);
    setText(this.term, number(view.cluster.term));
    for (const node of names) this.renderNode(node, view, clockMs);
    this.renderMessages(view);
  }

  renderNode(node, view, clockMs) {
    const part = this.parts.get(node);
    const replica = view.replicas[node];
    const kind = kindOf(replica);
    const role = inWords(replica, view, clockMs);
    setAttribute(part.group, "data-kind", kind);
    setText(part.role, role);
    setText(part.index, shortIndex(replica.last));
    const target = this.parts.get(view.cluster.leader);
    const isFollowing = Boolean(target) && target !== part && replica.leader === view.cluster.leader && kind === "follower";
    setClass(part.line, "is-on", isFollowing);
    if (target) {
      setAttribute(part.line, "x2", target.x);
      setAttribute(part.line, "y2", target.y);
    }
    const isPickable = this.mayCrash && replica.crashable;
    setAttribute(part.group, "tabindex", isPickable ? 0 : null);
    setAttribute(part.group, "role", isPickable ? "button" : "img");
    const what = `${node}, ${role}, last index ${number(replica.last)}`;
    setAttribute(part.group, "aria-label", isPickable ? `${what}. Crash its process…` : what);
  }

  // Compares with the last drawing: a follower's log grew by so many entries, a replica gave its vote in a new term.
  renderMessages(view) {
    for (const [node, replica] of Object.entries(view.replicas)) {
      const before = this.before.get(node);
      this.before.set(node, { last: replica.last, term: replica.term, vote: replica.vote });
      if (!before || replica.last === null || before.last === null) continue;
      const leader = view.cluster.leader;
      if (leader && leader !== node && replica.leader === leader && replica.last > before.last) {
        this.send(leader, node, replica.last - before.last);
      }
      const votes = replica.vote && replica.vote !== node && (replica.term > before.term || replica.vote !== before.vote);
      if (votes) this.fly(this.parts.get(node), this.parts.get(replica.vote), `vote for term ${number(replica.term)}`, "vote");
    }
  }

  // One dot a line at a time; entries that arrive meanwhile go with the next.
  send(from, to, count) {
    const part = this.parts.get(to);
    if (!motionAllowed()) return;
    part.pending += count;
    if (part.flying) return;
    const entries = part.pending;
    part.pending = 0;
    part.flying = true;
    this.fly(this.parts.get(from), part, plural(entries, "entry", "entries"), "entry", () => {
      part.flying = false;
    });
  }

  fly(from, to, label, cls, done = () => {}) {
    if (!from || !to || !motionAllowed()) return done();
    const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const inset = (this.size + 9) / length;
    const at = (share) => `translate(${from.x + (to.x - from.x) * share}px, ${from.y + (to.y - from.y) * share}px)`;
    const isFlat = Math.abs(to.y - from.y) < this.size;
    const isLeft = (from.x + to.x) / 2 < CENTRE.x;
    const beside = { x: isLeft ? -11 : 11, y: 4, "text-anchor": isLeft ? "end" : "start" };
    const text = svg("text", isFlat ? { x: 0, y: -11, "text-anchor": "middle" } : beside, label);
    const dot = svg("g", { class: cls }, svg("circle", { r: 6 }), text);
    this.dots.append(dot);
    const frame = (share, opacity) => ({ transform: at(inset + (1 - 2 * inset) * share), opacity, offset: share });
    const flight = dot.animate([frame(0, 0), frame(0.12, 1), frame(0.88, 1), frame(1, 0)], { duration: FLIGHT_MS, easing: "linear" });
    flight.finished.catch(() => {}).finally(() => {
      dot.remove();
      done();
    });
  }
}
