"""A real Firefox at the page, driven by WebDriver BiDi, which it speaks by itself."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.rig.waiting import until

FIREFOX = Path("/usr/bin/firefox-esr")
# A busy machine makes a browser slow.
PATIENCE = 30.0
# Keys that type no letter, as WebDriver names them.
KEYS = {
    "Escape": "\ue00c",
    "Enter": "\ue007",
    "Shift": "\ue008",
    "Control": "\ue009",
    "Delete": "\ue017",
    "Tab": "\ue004",
}
REPORT = """() => addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) =>
  console.error(`${violatedDirective}: ${blockedURI}`))"""
# Dark and without a graphics card, as the other browser is; and it calls nobody.
PREFERENCES = {
    "webgl.disabled": True,
    "layout.css.prefers-color-scheme.content-override": 0,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


class Firefox:
    """One browser with one tab."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.complaints: list[str] = []
        """Errors on the console, of scripts, and what the content security policy has refused."""
        # Playwright's loop runs in the thread of the tests.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Firefox:
        self._thread.start()
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items())
        (self._place / "user.js").write_text("\n".join(lines))
        arguments = ["--headless", "--no-remote", "--profile", str(self._place), "--remote-debugging-port", "0"]
        self._program = subprocess.Popen(
            [FIREFOX, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._program.stderr is not None
        for line in self._program.stderr:
            if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                break
        else:
            raise AssertionError("Firefox has ended before it could be driven")
        # It goes on to write; what it writes is read, so that it is never held up.
        self._reader = threading.Thread(target=self._program.stderr.read)
        self._reader.start()
        self._do(self._connect(f"{found[1]}/session"))
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])
        self.ask("script.addPreloadScript", functionDeclaration=REPORT)
        self._context = self.ask("browsingContext.create", type="tab")["context"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._disconnect())
        self._program.kill()
        self._program.wait()
        self._reader.join()
        # Else its end is reported as a failure of whatever test runs when the collector comes by.
        assert self._program.stderr is not None
        self._program.stderr.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer. Raises ``AssertionError`` for an error."""
        answer: dict[str, Any] = self._do(self._ask(method, params))
        return answer

    def open(self, address: str) -> None:
        """Returns when the page and its parts are there."""
        self.ask("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, awaited; what JSON can hold."""
        wrapped = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        found = self.ask(
            "script.evaluate",
            expression=wrapped,
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def wait(self, expression: str) -> None:
        """Returns when it is true."""
        until(lambda: self.evaluate(expression), PATIENCE, expression)

    def type(self, text: str) -> None:
        """Letters, one after the other; a line end is Enter."""
        values = [KEYS["Enter"] if letter == "\n" else letter for letter in text]
        self._keys([{"type": kind, "value": value} for value in values for kind in ("keyDown", "keyUp")])

    def press(self, *keys: str) -> None:
        """All at once, such as Control, Shift, F."""
        values = [KEYS.get(key, key) for key in keys]
        down = [{"type": "keyDown", "value": value} for value in values]
        self._keys([*down, *({"type": "keyUp", "value": value} for value in reversed(values))])

    def _keys(self, actions: list[dict[str, str]]) -> None:
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.ask("input.performActions", context=self._context, actions=[keyboard])

    # --- in the thread of the connection ---

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _connect(self, address: str) -> None:
        self._session = ClientSession()
        self._socket = await self._session.ws_connect(address, max_msg_size=64 << 20)
        self._listening = asyncio.create_task(self._listen(self._socket))

    async def _disconnect(self) -> None:
        # Closed first: a session that ends around an open socket leaves its connection to the collector.
        await self._socket.close()
        self._listening.cancel()
        await self._session.close()

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        self._answers[self._number] = answer = self._loop.create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        found = await answer
        assert found["type"] == "success", found
        result: dict[str, Any] = found["result"]
        return result

    async def _listen(self, socket: ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            found = json.loads(message.data)
            if found.get("method") == "log.entryAdded" and found["params"]["level"] == "error":
                self.complaints.append(found["params"]["text"])
            if found.get("id") in self._answers:
                self._answers.pop(found["id"]).set_result(found)
