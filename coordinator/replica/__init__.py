"""The host of replicas: one turn, the journal, the mailboxes, the feed, and the Celery bootstep around them."""
