"""Which changes of the configuration hold at once, and which wait for a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from sshgate.config.load import load
from sshgate.config.model import Address, Config, Limits, Profile, Ssh, Telemetry
from sshgate.errors import ConfigError
from sshgate.server.reload import ConfigReloader, split_reloadable
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record


def test_profiles_limits_and_texts_change_at_once() -> None:
    new = Config(
        ssh=Ssh(greeting="hello", drain=99.0), profiles={"default": Profile(warm=3)}, limits=Limits(sandboxes=7)
    )
    config, live, later = split_reloadable(Config(), new)
    assert config == new
    assert (live, later) == (["ssh.greeting", "ssh.drain", "profiles", "limits"], [])


def test_addresses_and_places_wait_for_a_restart() -> None:
    new = replace(
        Config(),
        ssh=Ssh(listen=Address("127.0.0.1", 1), banner="new"),
        telemetry=Telemetry(listen=Address("127.0.0.1", 2)),
    )
    config, live, later = split_reloadable(Config(), new)
    assert config == replace(Config(), ssh=Ssh(banner="new"))
    assert (live, later) == (["ssh.banner"], ["ssh.listen", "telemetry.listen"])


def test_the_same_file_changes_nothing() -> None:
    assert split_reloadable(Config(), Config()) == (Config(), [], [])


class Watched:
    """A file that is watched, and what its reader has done."""

    def __init__(self, place: Path) -> None:
        self.file = place / "sshgate.yaml"
        self.file.write_text("limits: {sandboxes: 1}\n")
        self.applied: list[int] = []
        self.emitted: asyncio.Queue[Record] = asyncio.Queue()
        self.refuse = False
        self.defect = False
        self.watch(self.file)

    def watch(self, file: Path) -> None:
        self.file = file
        self.reloader = ConfigReloader(file, load(file), self._apply, Events(self.emitted.put_nowait), interval=0.01)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reloader.run())
        try:
            yield
        finally:
            task.cancel()

    async def next_event(self) -> Record:
        return await asyncio.wait_for(self.emitted.get(), 5)

    async def _apply(self, config: Config) -> None:
        if self.defect:
            raise KeyError("limits")
        if self.refuse:
            raise ConfigError(["the host keys cannot be read."])
        self.applied.append(config.limits.sandboxes)


async def test_a_file_with_mistakes_is_reported_and_changes_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    async with watched.running():
        watched.file.write_text("limits: {sandboxes: many}\n")
        emitted = await watched.next_event()
        assert emitted.code is Code.CONFIG_REFUSED
        assert "limits.sandboxes: expected a whole number" in str(emitted.fields["reason"])
        watched.file.write_text("limits: {sandboxes: 22}\n")
        assert (await watched.next_event()).fields == {"changed": "limits"}
        assert watched.applied == [22]


async def test_a_mounted_file_is_noticed_when_its_directory_link_moves(tmp_path: Path) -> None:
    """As the kubelet replaces a ConfigMap: the file's own path stays, a link above it moves."""
    for name, number in (("..1", 1), ("..2", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sshgate.yaml").write_text(f"limits: {{sandboxes: {number}}}\n")
    (tmp_path / "mount").mkdir()
    data = tmp_path / "mount" / "..data"
    data.symlink_to("../..1")
    watched = Watched(tmp_path)
    mounted = tmp_path / "mount" / "sshgate.yaml"
    mounted.symlink_to("..data/sshgate.yaml")
    watched.watch(mounted)
    async with watched.running():
        (tmp_path / "mount" / "..new").symlink_to("../..2")
        (tmp_path / "mount" / "..new").rename(data)
        assert (await watched.next_event()).fields == {"changed": "limits"}
        assert watched.applied == [2]


async def test_what_cannot_be_applied_leaves_the_old_settings_in_force(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.refuse = True
    async with watched.running():
        watched.file.write_text("limits: {sandboxes: 22}\n")
        assert (await watched.next_event()).code is Code.CONFIG_REFUSED
        watched.refuse = False
        watched.reloader.request_reload()
        assert (await watched.next_event()).fields == {"changed": "limits"}


async def test_a_defect_costs_one_change_and_not_those_after_it(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.defect = True
    async with watched.running():
        watched.file.write_text("limits: {sandboxes: 22}\n")
        emitted = await watched.next_event()
        assert emitted.code is Code.CONFIG_REFUSED
        assert isinstance(emitted.error, KeyError)
        watched.defect = False
        watched.file.write_text("limits: {sandboxes: 333}\n")
        assert (await watched.next_event()).fields == {"changed": "limits"}
        assert watched.applied == [333]
