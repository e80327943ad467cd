// The table of locks: what, held by whom, token, queue, what is left of the lease; and the one act that fits each.

import { KeyedList, byId, el, setAttribute, setClass, setText } from "./dom.js";
import { number, ordinal, person, plural } from "./format.js";
import { notice } from "./notices.js";

const WAIT_TTL_MS = 30_000;
const UNSEEN_MS = 1_000; // A row that is scrolled out of sight is counted down this often: 200 of them cost a processor.
const ALONE = { mode: "exclusive", holding: 1, limit: 1 };

export class Locks {
  constructor(mine, { user, mayLock }) {
    this.mine = mine;
    this.principal = `user:${user}`;
    this.mayLock = mayLock;
    this.countedMs = 0;
    this.acted = null; // The row of which a button was used last, until the focus has its place again.
    this.inSight = new WeakSet();
    this.sight = new IntersectionObserver((rows) => {
      for (const { target, isIntersecting } of rows) this.inSight[isIntersecting ? "add" : "delete"](target);
    });
    this.list = new KeyedList(byId("locks"), ({ name }) => this.makeRow(name));
  }

  makeRow(name) {
    const part = {
      mode: el("span", { class: "sub mode", "data-testid": "lock-mode" }),
      holder: el("span", { "data-testid": "lock-holder" }),
      others: el("span", { class: "sub", "data-testid": "lock-others" }),
      trouble: el("span", { class: "sub bad" }),
      token: el("td", { role: "cell", class: "number token", "data-testid": "lock-token" }),
      queue: el("span"),
      bar: el("span", { class: "fill" }),
      left: el("span", { class: "left", "data-testid": "lock-lease" }),
      busy: false,
    };
    part.buttons = {
      renew: this.button("Renew", "renew", part, () => this.renew(name)),
      release: this.button("Release", "release", part, () => this.mine.release(name), "primary"),
      wait: this.button("Wait in line", "wait", part, () => this.mine.take(name, WAIT_TTL_MS, true)),
      leave: this.button("Leave the line", "leave", part, async () => this.mine.leave(name)),
    };
    part.lease = el("div", { class: "lease" }, el("span", { class: "track", "aria-hidden": "true" }, part.bar), part.left);
    part.node = el("tr", { role: "row", "data-testid": `lock-row-${name}` },
      el("th", { role: "rowheader", scope: "row", class: "lock-name" }, el("strong", {}, name), part.mode),
      el("td", { role: "cell", class: "holder" }, part.holder, part.others, part.trouble),
      part.token,
      el("td", { role: "cell", class: "queue" }, part.queue),
      el("td", { role: "cell", class: "lease-cell" }, part.lease),
      el("td", { role: "cell", class: "acts" }, el("div", {}, ...Object.values(part.buttons))),
    );
    this.sight.observe(part.node);
    return part;
  }

  button(text, id, part, act, cls = "") {
    const node = el("button", { type: "button", class: `button small ${cls}`, "data-testid": id, hidden: true }, text);
    node.addEventListener("click", async () => {
      if (part.busy) return;
      if (document.activeElement === node) this.acted = part;
      part.busy = true;
      node.disabled = true;
      try {
        await act();
      } catch (error) {
        notice(error.message, true);
      } finally {
        part.busy = false;
        node.disabled = false;
      }
    });
    return node;
  }

  async renew(name) {
    if (await this.mine.renew(name)) notice(`${name} has its full lease again.`);
  }

  render(view, clockMs) {
    const rows = this.rows(view);
    const used = this.acted ?? this.focusedRow();
    this.list.render(rows, ({ name }) => name, (part, row) => this.update(part, row));
    this.keepFocus(used);
    this.current = rows;
    const { known, held, waiting, kept_back: keptBack, kept_back_first: first } = view.lock_totals;
    byId("locks-table").hidden = rows.length === 0;
    byId("locks-empty").hidden = rows.length > 0;
    setText(byId("locks-empty"), this.whyEmpty(known, keptBack));
    const queue = waiting ? `, ${number(waiting)} waiting in line` : "";
    const part = held > rows.length ? `, the first ${number(rows.length)} shown` : "";
    const back = keptBack ? `, ${number(keptBack)} kept back for a lock-delay (${this.named(first, keptBack)})` : "";
    setText(byId("locks-hint"), known && (held || keptBack) ? `${number(held)} held${queue}${back}${part}` : "");
    this.tick(view, clockMs);
  }

  focusedRow() {
    const row = document.activeElement?.closest("#locks > tr");
    return row ? [...this.list.parts.values()].find(({ node }) => node === row) : null;
  }

  // Whose button is gone, and had the focus, goes on beside it: else the next Tab would begin at the top of the page.
  keepFocus(used) {
    if (!used || used.busy) return;
    const { activeElement: active, body } = document;
    const isLost = active === body || active.hidden;
    const beside = Object.values(used.buttons).find((button) => !button.hidden);
    const next = used.node.isConnected ? beside : byId("take-lock");
    this.acted = isLost && !next ? used : null; // Between a grant and the leader's report of it a row has no button.
    if (isLost) next?.focus({ preventScroll: true });
  }

  whyEmpty(known, keptBack) {
    if (!known) return "Waiting for the leader's first report.";
    if (keptBack) return "Nobody holds a lock. Who held what is kept back died, and it is given to nobody before its lock-delay is over.";
    return "Nobody holds a lock. Take one and watch its lease run down.";
  }

  // Of what is kept back, the names that most wait for.
  named(first, count) {
    const names = first.map(({ name, waiting }) => (waiting ? `${name}, for which ${number(waiting)} wait` : name));
    return names.join("; ") + (count > first.length ? "; …" : "");
  }

  // Mine first, then by name. What the leader has not reported yet, or does not list, is still shown as mine.
  rows(view) {
    const rows = Object.entries(view.locks).map(([name, lock]) => ({ name, ...lock }));
    for (const [name, { session, token }] of this.mine.held) {
      if (!(name in view.locks)) {
        const holder = { session, principal: this.principal };
        rows.push({ ...ALONE, name, holder, token, waiters: [], waiting: 0, ttl_ms: 0, ends_at_ms: null });
      }
    }
    for (const row of rows) row.isMine = this.mine.isMine(row.holder);
    return rows.sort((a, b) => b.isMine - a.isMine || (a.name < b.name ? -1 : 1));
  }

  update(part, row) {
    part.row = row;
    setClass(part.node, "is-mine", row.isMine);
    setText(part.mode, this.mode(row));
    setClass(part.mode, "is-shared", row.mode !== "exclusive");
    setText(part.holder, this.who(row.holder));
    setText(part.others, row.holding > 1 ? `and ${number(row.holding - 1)} more` : "");
    setText(part.token, number(row.token));
    const place = row.waiters.findIndex((waiter) => this.mine.isMine(waiter)) + 1;
    const isInLine = place > 0 || this.mine.waits.has(row.name);
    const count = row.waiting;
    setText(part.queue, place ? `you are ${ordinal(place)} of ${count}` : count ? `${number(count)} waiting` : "nobody");
    setClass(part.queue, "chip", count > 0);
    setClass(part.queue, "is-empty", count === 0);
    setAttribute(part.queue, "title", count ? row.waiters.map((waiter) => this.who(waiter)).join(", ") : null);
    part.buttons.renew.hidden = !row.isMine;
    part.buttons.release.hidden = !row.isMine;
    part.buttons.wait.hidden = row.isMine || isInLine || !this.mayLock;
    part.buttons.leave.hidden = row.isMine || !this.mine.waits.has(row.name);
  }

  // "" where the leader does not tell.
  mode({ mode, holding, limit }) {
    if (mode === "counting") return `counting, ${number(holding)} of ${number(limit)} taken`;
    if (mode !== "shared") return mode ?? "";
    return `shared, ${holding === 1 ? "one holds" : `${number(holding)} hold`} it`;
  }

  who(holder) {
    if (this.mine.isMine(holder)) return "you (this page)";
    return holder.principal === this.principal ? "you (another page or program)" : person(holder.principal);
  }

  // What moves with time alone: the leases.
  tick(view, clockMs) {
    const isWhole = Math.abs(clockMs - this.countedMs) >= UNSEEN_MS;
    if (isWhole) this.countedMs = clockMs;
    for (const { node, row, bar, left, lease, trouble } of this.list.parts.values()) {
      if (!isWhole && !this.inSight.has(node)) continue;
      const isCounting = view.lock_totals.counting && row.ends_at_ms !== null;
      const leftMs = isCounting ? Math.max(0, row.ends_at_ms - clockMs) : null;
      const share = isCounting ? Math.min(1, leftMs / row.ttl_ms) : 1;
      bar.style.transform = `scaleX(${share.toFixed(4)})`;
      setClass(lease, "is-low", isCounting && share < 0.25);
      setClass(lease, "is-kept", !isCounting);
      const idle = view.lock_totals.in_sight ? "kept" : "not known";
      setText(left, isCounting ? `${(leftMs / 1000).toFixed(1)} s` : idle);
      setAttribute(left, "title", isCounting ? `of ${plural(row.ttl_ms / 1000, "second")}` : "no leader is seen to count it down");
      setText(trouble, row.isMine ? this.mine.sessions.trouble(row.holder.session) : "");
    }
  }
}
