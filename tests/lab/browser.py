"""A headless Chromium in a network namespace without links; shows one page and answers about it.

Knows no page. It is steered through a pair of pipes in Chromium's own protocol (DevTools), which
asks the page what it looks like although the page forbids every script.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from lab import namespaces
from lab.channel import LabError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# Chromium reads commands from descriptor 3 and answers on 4.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_PATIENCE = 60.0


def browser_unavailable_reason() -> str | None:
    """Return why no page can be looked at here, or None."""
    if shutil.which("chromium") is None:
        return "chromium is not installed"
    return namespaces.unavailable_reason()


@dataclass
class Page:
    """What came of showing a page: complaints of the browser, and what the page asked for."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """Starts on entry; ends, with its namespace and its profile, on exit."""

    def __init__(self) -> None:
        self._namespace = f"{namespaces.fresh_prefix()}browser"
        self._number = 0
        self._rest = b""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="sipfw-browser-")
        namespaces.batch([f"netns add {self._namespace}"])
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        # The shell puts the two pipes where Chromium looks for them.
        start = f'exec 3<&{to_child} 4>&{from_child}; exec "$@"'
        words = ["chromium", *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, "bash", "-c", start, "start", *words],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._profile, "LC_ALL": "C.UTF-8"},
        )
        os.close(to_child)
        os.close(from_child)
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            answer = self._ask("Target.attachToTarget", targetId=target, flatten=True)
            self._session: str | None = answer["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._ask(f"{domain}.enable", session=True)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def show(
        self, file: Path, width: int, *, height: int = 900, scheme: str = "light", media: str = ""
    ) -> Page:
        """Load a file as a window of that size has it."""
        self._events.clear()
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            session=True,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", session=True, media=media, features=features)
        self._ask("Page.navigate", session=True, url=file.resolve().as_uri())
        self._wait("Page.loadEventFired")
        # One more round, so that complaints of the load have come.
        self.evaluate("document.readyState")
        page = Page()
        for event in self._events:
            _note(page, event["method"], event["params"])
        return page

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self._ask(
            "Runtime.evaluate", session=True, expression=expression, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise LabError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    def picture(self, *, scale: float = 1.0, height: float | None = None) -> bytes:
        """Return the page from its top as PNG, whole or as far down as `height`."""
        size = self._ask("Page.getLayoutMetrics", session=True)["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
        answer = self._ask(
            "Page.captureScreenshot",
            session=True,
            captureBeyondViewport=True,
            clip={**clip, "scale": scale},
        )
        return base64.b64decode(answer["data"])

    def paper(self) -> bytes:
        """Return the page as PDF, in the size that the page asks for."""
        answer = self._ask(
            "Page.printToPDF", session=True, preferCSSPageSize=True, printBackground=True
        )
        return base64.b64decode(answer["data"])

    def _ask(self, method: str, *, session: bool = False, **params: Any) -> dict[str, Any]:
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            request["sessionId"] = self._session
        os.write(self._to, json.dumps(request).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") != self._number:
                self._events.append(message)
                continue
            if "error" in message:
                raise LabError(f"{method}: {message['error']['message']}")
            result: dict[str, Any] = message["result"]
            return result

    def _wait(self, event: str) -> None:
        while not any(message.get("method") == event for message in self._events):
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], deadline - time.monotonic())
            data = os.read(self._from, 1 << 16) if ready else b""
            if not data:
                raise LabError("chromium does not answer")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _end(self) -> None:
        os.close(self._to)
        os.close(self._from)
        # Everything in the namespace is ours; Chromium has a dozen processes.
        namespaces.remove([self._namespace])
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


def _note(page: Page, method: str, params: dict[str, Any]) -> None:
    if method == "Log.entryAdded":
        page.complaints.append(params["entry"]["text"])
    elif method in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"}:
        page.complaints.append(json.dumps(params))
    elif method == "Network.requestWillBeSent":
        page.requests.append(params["request"]["url"])
