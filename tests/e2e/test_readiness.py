"""`/readyz` says whether logins can be served: the API server behind a proxy that breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig.balancer import Balancer
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import Scraped, get
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster


def test_an_api_server_that_is_gone_makes_it_not_ready_and_it_recovers(
    gateway: MakeGateway, namespace: Namespace, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    with Balancer.before_server(namespace.kubeconfig, tmp_path) as (proxy, place):
        health = free_port()
        made = gateway(
            "kubernetes",
            sandbox=place,
            telemetry={"listen": f"127.0.0.1:{health}"},
        )
        ssh = user_at(made)
        assert get(health, "/readyz") == (200, "ok\n")

        proxy.cut()
        until(lambda: get(health, "/readyz")[0] != 200, 20, "not ready")
        status, reason = get(health, "/readyz")
        assert status == 503
        assert "API server" in reason
        assert get(health, "/healthz") == (200, "ok\n")  # a restart would mend nothing
        refused = ssh.run("true")
        assert refused.status == 255
        assert "API server" in refused.both
        assert Scraped(health).total("sshgate_api_requests_total", outcome="unavailable") > 0

        proxy.mend()
        until(lambda: get(health, "/readyz")[0] == 200, 20, "ready again")
        assert ssh.run("echo in").out == b"in\n"
        made.stop()
