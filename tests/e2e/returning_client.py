"""The small client, come back: for tests of what a node does with a peer that was there before."""

import small_client


class Returning(small_client.Peer):
    """Holds what an earlier life did, under a new origin. For digests it writes what equals none,
    as of collections that are held in part, so that both sides list everything."""

    def __init__(self, exchange, before=None, reactor=None):
        super().__init__(exchange, reactor)
        if before:
            self.jobs, self.heads, self.held = before.jobs, before.heads, before.held
            self.clock = max(self.clock, before.clock)

    def have(self, level, entries):
        if level == 0:
            entries = [1, bytes(32)]
        elif level == 1:
            entries = [[c, None] for c in sorted({c for c, _ in self.heads})]
        super().have(level, entries)
