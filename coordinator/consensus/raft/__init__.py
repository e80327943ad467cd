"""Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014; Ongaro's thesis, 2014).

Use `Raft` with `Options` and `Log`; the other modules are its parts.
"""
