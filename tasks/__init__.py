"""One Prefect task a stage: how it is run, retried, limited and shown.

A task never computes anything: it has DVC run its stage in a process of its own and watches. DVC is the cache, so Prefect's is
off (its default policy hashes paths, not contents), nothing is written to result storage and a task returns a small dict.
Imports from the library only `params`, `events`, `errors` and, for what an experiment's message says, `repository`.
"""
