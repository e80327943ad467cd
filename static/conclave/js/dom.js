// Small helpers for drawing: elements from text (never from markup), and lists that keep their elements.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

// Writing only what changed keeps focus, selection and the browser's layout as they are.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

export function setClass(node, name, on) {
  if (node.classList.contains(name) !== on) node.classList.toggle(name, on);
}

// Brings the children of `parent` in step with `items`: one element each, made by `create`, kept by `key`, in this order.
export class KeyedList {
  constructor(parent, create) {
    this.parent = parent;
    this.create = create;
    this.parts = new Map();
  }

  render(items, key, update) {
    const focused = this.parent.contains(document.activeElement) ? document.activeElement : null;
    const wanted = new Set(items.map(key));
    for (const [name, part] of this.parts) {
      if (!wanted.has(name)) {
        part.node.remove();
        this.parts.delete(name);
      }
    }
    let place = this.parent.firstElementChild;
    for (const item of items) {
      const name = key(item);
      let part = this.parts.get(name);
      if (!part) {
        part = this.create(item);
        this.parts.set(name, part);
      }
      if (part.node !== place) this.parent.insertBefore(part.node, place);
      else place = place.nextElementSibling;
      update(part, item);
    }
    // What was moved has lost the focus.
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }
}

const still = window.matchMedia("(prefers-reduced-motion: reduce)");
export const motionAllowed = () => !still.matches && !document.hidden;
