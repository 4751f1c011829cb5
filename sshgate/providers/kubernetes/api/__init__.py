"""HTTP to the Kubernetes API server."""

from sshgate.config.private_names import check
from sshgate.providers.kubernetes.api.private import USED, WORKS

check("aiohttp", WORKS, USED)
