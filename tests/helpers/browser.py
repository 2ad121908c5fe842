"""A headless Chromium for tests, over its own protocol: pages, what their consoles say, and values of expressions.

Owns the browser's process. `apt-get install chromium` brings one; tests are skipped with a line where there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_SECONDS = 60
#: Number of a key in the protocol.
_KEYS = {"Tab": 9, "Enter": 13}
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "about:blank",
)  # fmt: skip


class Browser:
    """One page at a time; each `open` forgets what the last one said."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket, self._last = loop, socket, 0
        #: Errors of the console, and requests that failed.
        self.faults: list[str] = []
        #: Bytes that came over the network for the page, and addresses asked.
        self.received = 0
        self.asked: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Opens a page and waits until it is loaded."""
        self.faults, self.asked, self.received, self._loaded = [], [], 0, False
        self._call("Page.navigate", url=address)
        self._loop.run_until_complete(self._until(lambda: self._loaded))

    def value(self, expression: str) -> Any:
        """The value of an expression in the page, of a promise when it is kept. Raises AssertionError for an error."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Waits until an expression is true in the page."""
        until = time.monotonic() + _SECONDS
        while not self.value(expression):
            assert time.monotonic() < until, f"not true in {_SECONDS} s: {expression}"

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the size of the window and the colours that its user prefers, who wants no motion."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._call("Emulation.setEmulatedMedia", features=[scheme, still])

    def accessible(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What a screen reader is told, in the order of the page: role, name and properties of each node."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [
            (
                node["role"]["value"],
                node.get("name", {}).get("value", ""),
                {one["name"]: one["value"].get("value") for one in node.get("properties", ())},
            )
            for node in nodes
            if not node["ignored"]
        ]

    def press(self, key: str) -> None:
        """Presses a key of the keyboard, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._loop.run_until_complete(self._ask(method, parameters))

    async def _ask(self, method: str, parameters: dict[str, Any]) -> Any:
        self._last += 1
        number = self._last
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := await self._message()).get("id") != number:
            pass
        assert "error" not in message, message["error"]
        return message["result"]

    async def _until(self, is_done: Any) -> None:
        while not is_done():
            await self._message()

    async def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str(timeout=_SECONDS))
        said = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.faults.append(str(said["exceptionDetails"].get("exception", said["exceptionDetails"])))
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.faults.append(said["entry"]["text"])
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
                self.faults.append(str(said["args"]))
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])
            case "Network.loadingFinished":
                self.received += said["encodedDataLength"]
        return message


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in this folder. Skips the test where no Chromium is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("no Chromium: apt-get install chromium")
    process = subprocess.Popen(
        [program, *_OPTIONS[:-1], f"--user-data-dir={profile}", _OPTIONS[-1]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    loop = asyncio.new_event_loop()
    try:
        session, socket = loop.run_until_complete(_connected(profile / "DevToolsActivePort"))
        yield Browser(loop, socket)
        loop.run_until_complete(socket.close())
        loop.run_until_complete(session.close())
    finally:
        process.terminate()
        process.wait(timeout=_SECONDS)
        loop.close()


async def _connected(port_file: Path) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    until = time.monotonic() + _SECONDS
    while not (port_file.is_file() and port_file.read_text().count("\n")):
        assert time.monotonic() < until, "Chromium did not start"
        await asyncio.sleep(0.05)
    port = port_file.read_text().splitlines()[0]
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
        [page] = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
    return session, await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
