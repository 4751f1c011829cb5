"""How sandboxes are made, handed out and removed. The decisions are pure: time and randomness are passed in.

Reading order: ``schema`` and ``records`` (one pod as we read it), ``requests`` (what we change on it), ``clocks``
(which clock counts), ``expectations``, ``indexes`` and ``cache`` (what one gateway knows). Then one file for each
decision: ``pool_plan`` (refill the pools), ``claim`` (hand a pod out), ``join`` (named sandboxes), ``admission``
(limits), ``membership`` (which gateways live, which one leads) and ``reap_plan`` (remove what is left over).
``registry`` connects them to the cluster; ``pool``, ``parking`` and ``reaper`` carry decisions out.

Every gateway decides from its own cache, which lags behind the API server. What must hold between gateways is left to
the API server's own compare-and-swap: a patch with ``test``, a name that can exist once, a deletion with
preconditions. So the API server refuses a decision that was made on old knowledge.
"""
