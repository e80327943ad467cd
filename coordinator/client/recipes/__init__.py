"""What is made of files and locks: elections, groups, barriers, counters, queues. Thin, each in a module of its own
that says what it guarantees; the cluster knows nothing of them.

    from coordinator.client.recipes.election import Election

    with Election(client, "leader/eu").campaign(b"host-1") as leadership:
        leadership.check()

Every one takes a `Client` or an `AsyncClient`, and answers as that does.
"""
