"""How sandboxes come, are handed out, and go. The decisions are pure: time and randomness are passed in.

Reading order: ``records`` (one pod as we read it), ``patches`` (what we change on it), ``clocks`` (which time
counts), ``pace`` (how fast), ``expectations`` and ``book`` (what one gateway knows), then one file for each
decision: ``plan`` (refill the pools), ``pick`` and ``claiming`` (hand one out), ``join`` (named sandboxes),
``admit`` (limits), ``presence`` and ``reap`` (nothing stays behind). ``registry`` is where they meet the cluster.

Every gateway decides from its own book, which lags behind the API server; what must hold between gateways is
left to the API server's own compare-and-swap: a patch with ``test``, a name that can exist once, a deletion with
preconditions. A decision that was made on old knowledge is then refused, never wrong.
"""
