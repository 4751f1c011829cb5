"""Sandboxes as pods: ``api`` talks to the API server, ``exec`` runs one program in a pod, ``provider`` uses both."""
