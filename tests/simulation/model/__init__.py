"""What the committed log means, said once more and as plainly as can be: the truth that checkers compare with.

Nothing here knows the machine under test, only the words of its commands and results, and `docs/semantics.md`. Each
part is slow in the number of names, sessions and changes, of which a simulation has few: `requests` says which entry
takes effect, `namespace` what becomes of files and counters, `locks` who is let in, `truth` puts them together.
"""
