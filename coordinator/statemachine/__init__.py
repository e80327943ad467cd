"""What the log means: sessions, locks, keys, principals. Pure and deterministic (DESIGN.md, rule 5)."""
