"""The algorithms that decide: pure, deterministic, on the standard library alone (docs/design.md, rule 2)."""
