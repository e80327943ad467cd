// Short messages at the corner of the page. Good news goes by itself; bad news stays until it is read.

import { byId, el } from "./dom.js";

const SHOWN_MS = 6_000;
const NOTICES_MAX = 4;

export function notice(text, isBad = false) {
  const box = byId("notices");
  const close = el("button", { type: "button", class: "button small plain", "aria-label": "Close this message" }, "Close");
  const item = el("div", { class: isBad ? "notice bad-news" : "notice", "data-testid": "notice" }, el("p", {}, text), close);
  close.addEventListener("click", () => item.remove());
  box.append(item);
  while (box.children.length > NOTICES_MAX) box.firstElementChild.remove();
  if (!isBad) setTimeout(() => item.remove(), SHOWN_MS);
}
