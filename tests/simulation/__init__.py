"""A deterministic simulation of a whole installation, to prove the real code right under every kind of fault.

    python -m tests.simulation --engine raft --seeds 1-100 --jobs 2
    python -m tests.simulation --engine raft --seed 7 --trace
    python -m tests.simulation --engine raft --mutant vote-not-persisted

The unchanged core, state machine, replica and turn (`coordinator/consensus`, `statemachine`, `replica`) and the real
client's core and flows run on a simulated network, disks and clocks (`network`, `bus`, `disk`, `clocks`) under one
scheduler. `node` is a node's process, `clients` a client's; `workload` and `mixed` are what clients do. `faults` draws
what befalls them, `injector` does it. `watch` and `checkers` say what must hold, `model` what the log means.
`mutants` are bugs that must be found. `run` is one seed, `campaign` many.
"""
