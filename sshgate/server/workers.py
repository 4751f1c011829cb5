"""The parent of several workers (``serve --workers``): starts them, passes on signals, and begins a dead one anew.

The parent has no event loop and no threads, so it can fork at any time. The workers share the modules that it has
imported. They are its children only: if it dies, the kernel sends them SIGTERM, and they drain.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from sshgate.access.listening import bind
from sshgate.access.siblings import Inboxes, receive
from sshgate.config.load import load
from sshgate.config.model import Address, Config
from sshgate.errors import CannotListen, ConfigError
from sshgate.server.reload import split_reloadable
from sshgate.ssh import hostkeys
from sshgate.telemetry import log as logs

# Seconds before a dead worker is started again: twice as long each time, until it has run for a while.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
STEADY_SECONDS = 60.0
# A worker whose event loop has not turned for so long is killed, as the kubelet does with a whole gateway.
HUNG_SECONDS = 60.0
TICK = 1.0
STOP = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (*STOP, signal.SIGHUP)
# The parent's requests to drain, and to cut a drain. Nothing else cuts a worker's drain: service managers send SIGTERM
# to all processes of a service, and so does the kernel to the workers when the parent dies.
DRAIN, CUT = signal.SIGUSR1, signal.SIGUSR2
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger("sshgate.parent")


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker, as it is started. ``index`` counts from 0; people see ``number``."""

    index: int
    boxes: Inboxes
    restarts: int
    """How often it was begun anew."""

    @property
    def number(self) -> int:
        """Its number in logs and names."""
        return self.index + 1


class _Process:
    """What the parent knows of one worker."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.serving = False
        self.started = 0.0
        self.due = 0.0
        self.pause = FIRST_PAUSE
        self.restarts = -1
        self.still = 0.0

    def postpone(self) -> None:
        """Begin it anew later, and next time after twice as long."""
        self.due = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)


class Parent:
    """Runs the workers of one gateway. ``run`` blocks; call it from the main thread of a process without others.

    Args:
        config: As for ``app.run``; ``config.workers`` is the number of workers.
        file: The settings file, which a worker that is begun anew reads again.
        serve: Runs one worker in its process and returns the exit status.
    """

    def __init__(self, config: Config, file: Path | None, serve: Callable[[Config, Worker], int]) -> None:
        self._file = file
        self._serve = serve
        self._reserved: list[socket.socket] = []
        self._config = self._reserve(config)
        self._boxes = Inboxes(config.workers)
        self._workers = [_Process() for _ in range(config.workers)]
        self._signals: list[int] = []
        self._stopping = 0
        self._began = False
        self._status = 0

    def run(self) -> int:
        """Run until all workers have ended after a signal, or the first cannot start. Returns the exit status."""
        _preload(self._config)
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (*PASSED_ON, signal.SIGCHLD):
            signal.signal(number, self._caught)
        self._start(0)
        last = time.monotonic()
        while self._running or (self._began and not self._stopping):
            select.select([woken, self._boxes.parent], [], [], self._wait())
            with contextlib.suppress(BlockingIOError):
                while woken.recv(4096):
                    pass
            self._pass_on_signals()
            self._read_reports()
            self._collect()
            last = self._look_for_hung(last)
            self._start_due()
        return self._status

    @property
    def _running(self) -> bool:
        return any(one.pid is not None for one in self._workers)

    def _reserve(self, config: Config) -> Config:
        """Keep all addresses for the workers; port 0 becomes a port. Raises ``CannotListen`` if one is in use."""

        def kept(setting: str, wanted: Address) -> Address:
            try:
                # Who does not share the address is found only without sharing it, which includes another gateway.
                for one in bind(wanted, shared=False):
                    one.close()
                bound = bind(wanted, shared=True)
            except OSError as error:
                raise CannotListen(setting, wanted, error) from error
            self._reserved += bound
            return Address(wanted.host, wanted.port or bound[0].getsockname()[1])

        changed = replace(config, ssh=replace(config.ssh, listen=kept("ssh.listen", config.ssh.listen)))
        if config.web is not None:
            changed = replace(changed, web=replace(config.web, listen=kept("web.listen", config.web.listen)))
        if config.telemetry.listen is not None:
            listen = kept("telemetry.listen", config.telemetry.listen)
            changed = replace(changed, telemetry=replace(config.telemetry, listen=listen))
        return changed

    # --- one worker ---

    def _start(self, index: int) -> None:
        one = self._workers[index]
        one.started = time.monotonic()
        one.still, one.serving = 0.0, False
        self._boxes.clear(index)
        worker = Worker(index, self._boxes, one.restarts + 1)
        # Signals wait until the child can handle them: none is lost, and none kills it half started.
        signal.pthread_sigmask(signal.SIG_BLOCK, [*PASSED_ON, DRAIN, CUT])
        parent = os.getpid()
        try:
            pid = os.fork()
            if not pid:
                self._child(worker, parent)
        except OSError as error:
            log.error("worker.unstarted", number=worker.number, error=str(error), seconds=one.pause)
            one.postpone()
            self._status = self._status or int(not self._began)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [*PASSED_ON, DRAIN, CUT])
        one.pid = pid
        one.restarts += 1
        log.info("worker.started", number=worker.number, pid=pid)

    def _child(self, worker: Worker, parent: int) -> None:
        """Become the worker; never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (*STOP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
            # Ctrl-C is for the parent, which passes it on.
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            for one in self._reserved:
                one.close()
            logs.configure(self._config.log, worker.number)
            status = self._serve(self._settings(worker), worker)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            log.exception("worker.broken")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _settings(self, worker: Worker) -> Config:
        """The settings in force at the other workers: those of the start with the changes that need no restart."""
        if self._file is None or not worker.restarts:
            return self._config
        try:
            return split_reloadable(self._config, load(self._file))[0]
        except ConfigError:
            return self._config

    # --- what happens ---

    def _caught(self, number: int, _: object) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _pass_on_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number in STOP:
                self._stopping += 1
                number = DRAIN if self._stopping == 1 else CUT
            for one in self._workers:
                if one.pid is not None:
                    os.kill(one.pid, number)

    def _read_reports(self) -> None:
        while (found := receive(self._boxes.parent)) is not None:
            sender, kind = found[0], found[1]
            self._workers[sender].still = 0.0
            if kind == "serving":
                self._workers[sender].serving = True
                if not self._began:
                    self._began = True
                    for index in range(1, len(self._workers)):
                        if not self._stopping:
                            self._start(index)

    def _collect(self) -> None:
        """Take note of workers that have ended. Before the first has served, its failure is the gateway's."""
        for index, one in enumerate(self._workers):
            if one.pid is None:
                continue
            pid, ended = os.waitpid(one.pid, os.WNOHANG)
            if not pid:
                continue
            one.pid = None
            status = os.waitstatus_to_exitcode(ended)
            self._boxes.worker_gone(index)
            if self._stopping or not self._began:
                # A worker that was still starting is ended by the signal itself.
                self._status = self._status or (status if status >= 0 else 0 if self._stopping else 1)
                continue
            if time.monotonic() - one.started > STEADY_SECONDS:
                one.pause = FIRST_PAUSE
            log.error("worker.ended", number=index + 1, status=status, seconds=one.pause)
            one.postpone()

    def _look_for_hung(self, last: float) -> float:
        """Kill workers whose event loop is stuck. Time in which this process was stopped does not count."""
        now = time.monotonic()
        for index, one in enumerate(self._workers):
            one.still += min(now - last, 2 * TICK)
            if one.pid is not None and one.still > HUNG_SECONDS:
                log.error("worker.hung", number=index + 1, seconds=HUNG_SECONDS)
                os.kill(one.pid, signal.SIGKILL)
                one.still = 0.0
        return now

    def _start_due(self) -> None:
        for index, one in enumerate(self._workers):
            if self._began and not self._stopping and one.pid is None and time.monotonic() >= one.due:
                self._start(index)

    def _wait(self) -> float:
        due = [one.due - time.monotonic() for one in self._workers if one.pid is None] if self._began else []
        return max(0.0, min([TICK, *due]))


def _preload(config: Config) -> None:
    """Import what all workers need, and make the files that are made at the first start: once instead of in each."""
    importlib.import_module("sshgate.providers.kubernetes.provider")
    importlib.import_module("sshgate.providers.kubernetes.api.library").load()
    hostkeys.load(config.ssh.host_keys)
    if config.web is not None:
        importlib.import_module("webshim.server")
        importlib.import_module("webshim.credentials").load(config.web.secret)
    if config.telemetry.listen is not None:
        importlib.import_module("sshgate.telemetry.health")
    gc.collect()
    # So that a collection in a worker does not copy the pages of what is here.
    gc.freeze()
