// What a replica is at this moment, as one word for colours and tests, and as words for people. Pure.

import { duration, number } from "./format.js";

// The role, where the replica's own claim to lead is not confirmed: "unconfirmed".
export const kindOf = (replica) => (replica.role === "leader" && !replica.leads ? "unconfirmed" : replica.role);

export const isSilent = (replica) => replica.silent_since_ms !== null;

export function inWords(replica, view, clockMs) {
  if (isSilent(replica)) {
    if (!view.lock_totals.in_sight) return "out of sight";
    return `silent ${duration(clockMs - replica.silent_since_ms, { tenthsBelow: 0 })}`;
  }
  const kind = kindOf(replica);
  if (kind !== "unconfirmed") return kind;
  return replica.term < view.cluster.term ? `led term ${number(replica.term)}` : "not confirmed";
}
