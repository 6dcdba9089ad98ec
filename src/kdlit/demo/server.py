"""The page and the one question that it asks, as a web application."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdlit.demo.drawing import digit_of
from kdlit.errors import DataError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

DRAWING_SIDE = 112
"""Pixels of a side of the drawing that the page sends: its body is as many bytes, squared."""

_CALLS_TIMED = 5
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Judge:
    """Who is asked about a drawing.

    Attributes:
        networks: by their titles, `student` and perhaps `teacher`, functions of normalised images
            (1, C, H, W) that return logits (1, C).
        normalize: maps pixels in 0 to 255 to what the networks expect.
        classes: the classes' names, in the order of the logits.
        title: what the page says of the run.
    """

    networks: Mapping[str, Network]
    normalize: Callable[[Tensor], Tensor]
    classes: tuple[str, ...]
    title: str

    @torch.inference_mode()
    def __call__(self, drawing: Tensor) -> dict[str, Any]:
        """Return the digit as the networks see it and, of each, logits and milliseconds.

        Raises:
            DataError: if nothing is drawn.
        """
        digit = digit_of(drawing)
        images = self.normalize(digit[None].float())
        said: dict[str, Any] = {}
        for name, network in self.networks.items():
            seconds = []
            for _ in range(_CALLS_TIMED):
                start = time.perf_counter()
                logits = network(images)
                seconds.append(time.perf_counter() - start)
            said[name] = {
                "logits": logits[0].float().tolist(),
                "milliseconds": 1e3 * statistics.median(seconds),
            }
        return {"digit": digit[0].flatten().tolist(), "networks": said}


class RateLimit:
    """A bucket of tokens: so many calls at once, and so many more each second.

    >>> now = iter([0.0, 0.0, 0.0, 0.0, 1.0])
    >>> limit = RateLimit(burst=2, per_second=1.0, clock=lambda: next(now))
    >>> [limit.allows() for _ in range(4)]
    [True, True, False, True]
    """

    def __init__(
        self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst, self.per_second, self._clock = burst, per_second, clock
        self._tokens, self._last = float(burst), clock()

    def allows(self) -> bool:
        """Take a token, and return whether there was one."""
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + self.per_second * (now - self._last))
        self._last = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def application(
    judge: Judge, hosts: tuple[str, ...] = ("127.0.0.1", "localhost"), per_second: float = 20.0
) -> "Starlette":
    """Return the web application; it serves the page and the answers, and no files.

    Requests for another host (as a foreign page would make by a name of its own that leads
    here), from another origin, of another size, and too many of them, are refused.

    Args:
        judge: who is asked.
        hosts: names under which it may be called.
        per_second: drawings that are answered each second.

    Raises:
        ImportError: without the extra `demo`.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Route

    text = page(judge)
    limit = RateLimit(burst=max(int(2 * per_second), 1), per_second=per_second)

    async def home(request: "Request") -> "Response":
        return HTMLResponse(text, headers=_HEADERS)

    def refuse(status: int, why: str) -> "Response":
        return JSONResponse({"error": why}, status, _HEADERS)

    async def answer(request: "Request") -> "Response":
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.headers['host']}":
            return refuse(403, "asked from another page")
        if not limit.allows():
            return refuse(429, "too many drawings at once: wait a second")
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > DRAWING_SIDE**2:
                    break
        except ClientDisconnect:
            return refuse(400, "gone before it was sent")
        if len(body) != DRAWING_SIDE**2:
            return refuse(413, f"a drawing is {DRAWING_SIDE}x{DRAWING_SIDE} bytes")
        drawing = torch.frombuffer(body, dtype=torch.uint8).view(DRAWING_SIDE, DRAWING_SIDE)
        try:
            said = await run_in_threadpool(judge, drawing)
        except DataError as error:
            return refuse(422, str(error))
        return JSONResponse(said, headers=_HEADERS)

    return Starlette(
        routes=[Route("/", home), Route("/answer", answer, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def page(judge: Judge) -> str:
    """Return the page's HTML.

    Raises:
        ImportError: without the extra `demo`.
    """
    from jinja2 import Environment, StrictUndefined

    source = files("kdlit.demo").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(source).render(
        title=judge.title,
        side=DRAWING_SIDE,
        classes=list(judge.classes),
        networks=list(judge.networks),
    )
