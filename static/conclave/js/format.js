// How numbers, durations, names and terms read. Pure.

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

export const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));

// An index where there is little room: "18,442", and of a long one its last digits, "…400,161".
export function shortIndex(index) {
  if (index === null || index === undefined || index < 1_000_000) return number(index);
  const tail = String(index % 1_000_000).padStart(6, "0");
  return `…${tail.slice(0, 3)},${tail.slice(3)}`;
}

// A reading with as many digits as say something: 1,284 · 12.3 · 0.21.
export function reading(value) {
  if (value === 0) return "0";
  if (value >= 100) return whole.format(value);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2).replace(/0$/, "");
}

// The same wording as the server's sentence: "0.8 s", "12 s", "3 min 12 s", "5 h 3 min", "2 d 4 h".
export function duration(ms, { tenthsBelow = 10_000 } = {}) {
  const tenths = Math.floor(Math.max(0, ms) / 100);
  if (tenths * 100 < tenthsBelow) return `${(tenths / 10).toFixed(1)} s`;
  const seconds = Math.floor(tenths / 10);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// A short wait, as an election's: "41 ms", "0.9 s".
export const wait = (ms) => (ms < 200 ? `${Math.round(ms)} ms` : duration(ms));

export const plural = (count, noun, many = `${noun}s`) => `${number(count)} ${count === 1 ? noun : many}`;

export function timeOfDay(atMs) {
  return new Date(atMs).toLocaleTimeString("en-GB");
}

export function dayAndTime(atMs) {
  return new Date(atMs).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export const termClass = (term) => `term-${term % 8}`;

export function ordinal(place) {
  const tail = place % 100 > 10 && place % 100 < 14 ? "th" : (["th", "st", "nd", "rd"][place % 10] ?? "th");
  return `${place}${tail}`;
}

// A principal as people say it: the web's own prefix says nothing to them.
export const person = (principal) => principal.replace(/^user:/, "");

const NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
export const counted = (count) => NUMBERS[count] ?? number(count);

// "node1", "node1 and node2", "node1, node2 and node3".
export const listed = (names) => (names.length < 2 ? names.join() : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);
