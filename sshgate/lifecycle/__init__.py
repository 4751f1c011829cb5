"""How sandboxes are made, handed out and removed. The decisions are pure: time and randomness are passed in.

Reading order: ``schema`` and ``records`` (one pod as we read it), ``patches`` (what we change on it), ``clocks`` (which
clock counts), ``pace`` (rate limits), ``expectations`` and ``cache`` (what one gateway knows). Then one file for each
decision: ``pool_plan`` (refill the pools), ``pick`` and ``claim`` (hand a pod out), ``join`` (named sandboxes),
``admission`` (limits), ``membership`` and ``election`` (which gateways live, which one leads) and ``reap_plan``
(remove what is left over). ``registry`` connects them to the cluster; ``claim_loop``, ``pool``, ``parking`` and
``reaper`` carry decisions out.

Every gateway decides from its own cache, which lags behind the API server. What must hold between gateways is left to
the API server's own compare-and-swap: a patch with ``test``, a name that can exist once, a deletion with
preconditions. So the API server refuses a decision that was made on old knowledge.
"""
