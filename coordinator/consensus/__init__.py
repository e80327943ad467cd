"""The algorithms that decide: pure, deterministic, on the standard library alone (DESIGN.md, rule 2)."""
