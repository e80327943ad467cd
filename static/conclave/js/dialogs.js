// The dialogs: taking a lock; crashing a node's process, and taking the log's word, which say first what will happen.

import { byId, el, setText } from "./dom.js";
import { counted, listed, number, person } from "./format.js";
import { notice } from "./notices.js";

const TTL_MS_MIN = 500;
const TTL_MS_MAX = 86_400_000;

function showError(box, text) {
  box.hidden = !text;
  setText(box, text);
}

function closable(dialog) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}

export class LockDialog {
  constructor(mine, { user }) {
    this.mine = mine;
    this.principal = `user:${user}`;
    this.dialog = byId("lock-dialog");
    this.submit = byId("lock-submit");
    closable(this.dialog);
    this.dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.take();
    });
    const button = byId("take-lock"); // Sent disabled: it does nothing before this runs.
    if (!button) return;
    button.addEventListener("click", () => this.open());
    button.disabled = false;
  }

  open() {
    showError(byId("lock-error"), "");
    this.dialog.showModal();
    byId("lock-name").select();
  }

  async take() {
    const name = byId("lock-name").value.trim().replace(/^\//, "");
    const ttlMs = Math.round(Number(byId("lock-ttl").value) * 1000);
    const isWaiting = byId("lock-wait").checked;
    if (!name) return this.refuse("Give the lock a name, such as deploy.", "lock-name");
    if (!(ttlMs >= TTL_MS_MIN && ttlMs <= TTL_MS_MAX)) {
      return this.refuse(`The time to live is between ${TTL_MS_MIN / 1000} s and ${number(TTL_MS_MAX / 1000)} s.`, "lock-ttl");
    }
    if (this.mine.held.has(name)) return this.refuse(`This page holds ${name} already.`, "lock-name");
    if (this.mine.waits.has(name)) return this.refuse(`This page waits in line for ${name} already.`, "lock-name");
    showError(byId("lock-error"), "");
    this.submit.disabled = true;
    setText(this.submit, "Taking it…");
    try {
      const isHeld = await this.mine.take(name, ttlMs, isWaiting);
      this.dialog.close();
      if (isHeld) notice(`${name} is yours, with token ${number(this.mine.held.get(name).token)}.`);
    } catch (error) {
      this.refuse(this.whyNot(name, error), "lock-name");
    } finally {
      this.submit.disabled = false;
      setText(this.submit, "Take it");
    }
  }

  whyNot(name, error) {
    const holder = error.status === 409 ? error.body.holder : null;
    if (!holder) return error.message;
    const who = holder.principal === this.principal ? "you, in another page or program" : person(holder.principal);
    return `${name} is held by ${who}, with token ${number(error.body.token)}. Wait in line, or take another.`;
  }

  refuse(text, field) {
    showError(byId("lock-error"), text);
    byId(field).focus();
  }
}

export class CrashDialog {
  constructor(api, getView) {
    this.api = api;
    this.getView = getView;
    this.dialog = byId("crash-dialog");
    this.button = byId("crash-confirm");
    closable(this.dialog);
    this.button.addEventListener("click", () => this.crash());
  }

  open(node) {
    this.node = node;
    showError(byId("crash-error"), "");
    setText(byId("crash-title"), `Crash ${node}?`);
    setText(this.button, `Crash ${node}`);
    this.say();
    this.dialog.showModal();
  }

  // Others may fail while the person still thinks: what is said is what would happen now.
  draw() {
    if (this.dialog.open) this.say();
  }

  say() {
    const { node } = this;
    const { replicas, cluster } = this.getView();
    const leads = cluster.leader === node;
    setText(byId("crash-text"), `${node} ${leads ? `leads term ${number(cluster.term)}` : "does not lead"}. Its process ends at once, as by kill -9.`);
    const left = cluster.voters.filter((voter) => voter !== node && replicas[voter]?.counts);
    const majority = Math.floor(cluster.voters.length / 2) + 1;
    const facts = this.facts(leads, left, majority);
    const key = facts.map((fact) => fact.textContent).join("\n");
    if (this.said === key) return;
    this.said = key;
    byId("crash-facts").replaceChildren(...facts);
  }

  facts(leads, left, majority) {
    const facts = [];
    if (left.length >= majority) {
      if (leads) facts.push(`${listed(left)} elect a new leader; callers wait until they have.`);
      else facts.push("The leader goes on without it.");
      facts.push("Locks stay with their holders, with the same tokens.");
    } else {
      const rest = left.length ? `Only ${listed(left)} would be left` : "Nobody would be left";
      const need = `${counted(majority)} ${majority === 1 ? "is" : "are"} needed`;
      facts.push(el("strong", { class: "bad" }, `${rest}, and ${need}: the cluster stops until one more is back. Locks are kept.`));
    }
    facts.push("The worker is started again by itself, with its journal.");
    facts.push("It lands in the audit, under your name.");
    return facts.map((fact) => el("li", {}, fact));
  }

  async crash() {
    this.button.disabled = true;
    try {
      await this.api.crash(this.node, "from the live page");
      this.dialog.close();
      notice(`${this.node} was crashed.`);
    } catch (error) {
      showError(byId("crash-error"), error.message);
    } finally {
      this.button.disabled = false;
    }
  }
}

export class RebuildDialog {
  constructor(api) {
    this.api = api;
    this.dialog = byId("rebuild-dialog");
    this.button = byId("rebuild-confirm");
    closable(this.dialog);
    this.button.addEventListener("click", () => this.rebuild());
  }

  open() {
    showError(byId("rebuild-error"), "");
    this.dialog.showModal();
  }

  async rebuild() {
    this.button.disabled = true;
    try {
      const { generation } = await this.api.rebuild();
      this.dialog.close();
      notice(`The database says what the log says: generation ${number(generation)}.`);
    } catch (error) {
      showError(byId("rebuild-error"), error.message);
    } finally {
      this.button.disabled = false;
    }
  }
}
