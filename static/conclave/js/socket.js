// The one WebSocket of the page: reconnects with back-off, notices silence, and says in which of three states it is.

const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 5_000;
const STALE_MS = 2_500; // The server says something at least once a second.
const DEAD_MS = 15_000;
const CONNECTING_MS = 8_000; // A browser itself may try for minutes to reach who is out of reach no more.

const FINAL = {
  4401: "signed-out",
  4403: "forbidden",
};
const NO_CLUSTER = 4404; // Passes: a web process that has just started knows a cluster once a node reports it.

export class Socket {
  // `onMessage(message)`, `onOpen()`, `onFinal(reason)`: reason is one of the words above, and nothing follows it.
  constructor(path, { onMessage, onOpen, onFinal }) {
    this.url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
    this.handlers = { onMessage, onOpen, onFinal };
    this.backoffMs = BACKOFF_MS_MIN;
    this.heardMs = null;
    this.socket = null;
    this.retryMs = null;
    this.timer = null;
    this.final = null;
    this.isUnknown = false; // Was it turned away last because no such cluster is known, and has heard nothing since?
    window.addEventListener("online", () => {
      if (this.isConnecting) this.giveUp();
      this.retryNow();
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  connect() {
    this.timer = null;
    this.retryMs = null;
    const socket = new WebSocket(this.url);
    this.socket = socket;
    this.openedMs = performance.now();
    this.heardMs = null;
    socket.addEventListener("open", () => this.handlers.onOpen());
    socket.addEventListener("message", (event) => {
      if (socket !== this.socket) return;
      this.heardMs = performance.now();
      this.openedMs = this.heardMs;
      this.isUnknown = false;
      this.backoffMs = BACKOFF_MS_MIN;
      this.handlers.onMessage(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => socket === this.socket && this.closed(event.code));
  }

  closed(code) {
    this.socket = null;
    if (code in FINAL) {
      this.final = FINAL[code];
      this.handlers.onFinal(this.final);
      return;
    }
    this.isUnknown = code === NO_CLUSTER;
    const waitMs = this.backoffMs * (0.5 + Math.random() / 2);
    this.backoffMs = Math.min(2 * this.backoffMs, BACKOFF_MS_MAX);
    this.retryMs = performance.now() + waitMs;
    this.timer = setTimeout(() => this.connect(), waitMs);
  }

  // The person is signed in again.
  again() {
    if (this.final !== "signed-out") return;
    this.final = null;
    this.connect();
  }

  retryNow() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.connect();
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  get isConnecting() {
    return this.socket?.readyState === WebSocket.CONNECTING;
  }

  giveUp() {
    const dead = this.socket;
    this.closed(1006);
    dead.close();
  }

  // live, stale (connected, and nothing comes), or disconnected. Gives up a connection that has been silent for long, or
  // does not come about.
  state(nowMs) {
    const silentMs = nowMs - this.openedMs;
    if (this.isConnecting && silentMs > CONNECTING_MS) this.giveUp();
    if (this.socket?.readyState !== WebSocket.OPEN) return "disconnected";
    if (silentMs > DEAD_MS) {
      this.giveUp();
      return "disconnected";
    }
    return this.heardMs === null || silentMs > STALE_MS ? "stale" : "live";
  }
}
