// The live page: connects, keeps the state, draws it at most ten times a second, and says when what it shows is old.

import { Api } from "./api.js";
import { CrashDialog, LockDialog, RebuildDialog } from "./dialogs.js";
import { byId, el, motionAllowed, setAttribute, setClass, setText } from "./dom.js";
import { Elections } from "./elections.js";
import { Figures } from "./figures.js";
import { duration, timeOfDay } from "./format.js";
import { Locks } from "./locks.js";
import { LogGrid } from "./log.js";
import { MyLocks } from "./mylocks.js";
import { notice } from "./notices.js";
import { Replicas } from "./replicas.js";
import { Ring } from "./ring.js";
import { Socket } from "./socket.js";
import { LiveState } from "./state.js";

const DRAW_MS = 100;
const UNKNOWN = "No node has reported a cluster of this name yet";

const page = byId("main").dataset;
const mayLock = page.mayLock === "yes";
const mayAdminister = page.mayAdminister === "yes";

const state = new LiveState();
const api = new Api(page.api, { csrf: page.csrf, user: page.user, onSignedInAgain: () => socket.again() });
const mine = new MyLocks(api, {
  key: `${page.cluster}.${page.user}`,
  notice,
  onChange: () => {
    isDirty = true;
  },
});
const crashDialog = new CrashDialog(api, () => state.view);
const rebuildDialog = new RebuildDialog(api);
const lockDialog = new LockDialog(mine, { user: page.user });
const ring = new Ring(byId("ring"), { mayCrash: mayAdminister, onCrash: (node) => crashDialog.open(node) });
const replicas = new Replicas();
const logGrid = new LogGrid();
const figures = new Figures();
const elections = new Elections();
const locks = new Locks(mine, { user: page.user, mayLock });

let isDirty = false;
let heardAtWallMs = null;
let spokenState = "";
let spokenOld = false;

const socket = new Socket(page.socket, {
  onOpen: () => state.forgetNumber(),
  onMessage: (message) => {
    const outcome = state.take(message, performance.now());
    if (outcome === "gap") socket.send({ type: "snapshot" });
    if (outcome === "changed") {
      isDirty = true;
      heardAtWallMs = Date.now();
    }
    // Messages come once a second even where the browser slows the timers of a page that nobody looks at.
    mine.sessions.tick();
    if (state.view) mine.observe(state.view, performance.now());
  },
  onFinal: (reason) => showFinal(reason),
});

// --- the first line ---------------------------------------------------------------------------------

function words(pairs) {
  return pairs.map(([text, tag]) => (tag === "leader" ? el("span", { class: "leader", "data-testid": "leader-name" }, text) : text));
}

function drawWords(node, pairs) {
  const key = JSON.stringify(pairs);
  if (node.dataset.said === key) return;
  node.dataset.said = key;
  node.replaceChildren(...words(pairs));
}

function drawSentence({ state: standing, words: said, detail, notes }) {
  const title = byId("sentence");
  setAttribute(title, "data-state", standing);
  drawWords(title, said);
  drawWords(byId("detail"), detail.length ? detail : [["\u00a0", ""]]);
  const list = byId("notes");
  const key = notes.join("\n");
  if (list.dataset.said !== key) {
    list.dataset.said = key;
    list.replaceChildren(...notes.map((note) => el("li", {}, note)));
  }
  // Spoken when the state changes, not with every second that it lasts.
  if (standing !== spokenState) {
    spokenState = standing;
    setText(byId("spoken"), said.map(([text]) => text).join(""));
  }
}

function drawActions(view) {
  const leader = view.replicas[view.cluster.leader];
  byId("lose-leader").hidden = !(mayAdminister && Object.values(view.replicas).some((replica) => replica.crashable));
  byId("rebuild").hidden = !(mayAdminister && view.sentence.rebuild);
  byId("lose-leader").disabled = !leader?.crashable;
  setText(byId("replicas-hint"), motionAllowed() ? "entries and votes, slowed" : "");
}

// --- is it true now? ---------------------------------------------------------------------------------

function drawConnection(nowMs) {
  const connection = socket.final ? "disconnected" : socket.state(nowMs);
  setAttribute(byId("connection"), "data-state", connection);
  setText(byId("connection-text"), connection === "disconnected" && !state.view && !socket.final ? "connecting" : connection);
  const isOld = connection !== "live" && state.view !== null;
  setClass(byId("panels"), "is-stale", isOld || state.view?.sentence.state === "blind");
  setClass(byId("sentence"), "is-stale", isOld);
  if (socket.final) return;
  if (isOld !== spokenOld) {
    spokenOld = isOld;
    setText(byId("spoken"), isOld ? "Stale: the page is not connected." : "Connected again.");
  }
  const banner = byId("banner");
  banner.hidden = !isOld && !socket.isUnknown;
  if (banner.hidden) return;
  if (!isOld) {
    setText(banner, `${UNKNOWN}; trying again.`);
    return;
  }
  const ago = duration(Date.now() - heardAtWallMs, { tenthsBelow: 0 });
  const trying = socket.isUnknown ? `${UNKNOWN.toLowerCase()}; trying again` : "trying again";
  const again = connection === "stale" && !socket.isUnknown ? "the connection is open, and nothing comes" : trying;
  setText(banner, `Stale: what you see is from ${timeOfDay(heardAtWallMs)}, ${ago} ago; ${again}. Your locks do not depend on this page's picture.`);
}

function showFinal(reason) {
  const banner = byId("banner");
  banner.hidden = false;
  const texts = {
    "signed-out": "You are signed out. ",
    forbidden: "You may no longer watch this cluster: your account lost the right to read. ",
  };
  const way = reason === "signed-out" ? el("a", { href: page.login }, "Sign in again") : el("a", { href: "" }, "Try again");
  banner.replaceChildren(texts[reason], way);
}

// --- drawing ------------------------------------------------------------------------------------------

function draw() {
  const nowMs = performance.now();
  mine.sessions.tick();
  drawConnection(nowMs);
  if (document.hidden || state.view === null) return;
  const clockMs = state.clock(nowMs);
  if (!isDirty) {
    locks.tick(state.view, clockMs);
    return;
  }
  isDirty = false;
  const view = state.view;
  drawSentence(view.sentence);
  drawActions(view);
  ring.render(view, clockMs);
  replicas.render(view, clockMs);
  logGrid.render(view);
  figures.render(view);
  elections.render(view);
  locks.render(view, clockMs);
  crashDialog.draw();
}

byId("rebuild").addEventListener("click", () => rebuildDialog.open());
byId("lose-leader").addEventListener("click", () => crashDialog.open(state.view.cluster.leader));
mine.restore();
socket.connect();
setInterval(draw, DRAW_MS);
