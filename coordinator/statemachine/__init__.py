"""What the log means: sessions, locks, keys, principals. Pure and deterministic (docs/design.md, rule 5)."""
