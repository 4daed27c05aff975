"""Asking over HTTP: ``segearth serve``.

One picture is worked on at a time, since a segmenter holds one; further requests wait in their order. The form reader
keeps a request's file in memory or, above a megabyte, in a file without a name that nobody else can open and that is
gone with the request. What is decoded and answered stays in memory and is dropped after the response.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of its endpoints, and as texts it could
# not find names that are imported inside a function.
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from segearth.errors import MissingExtraError, SegEarthError, UnknownNameError
from segearth.segmenter import Segmenter, facts_of
from segearth.structures import TARGETS_OF_TASK, Regions
from segearth.web.asking import Asker
from segearth.web.reading import read_upload
from segearth.web.results import boxes_json, collection_of, dumped, mask_geotiff, mask_png
from segearth.web.uploads import UNREADABLE, Limits, UploadError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from starlette.responses import Response

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

OUTPUT_FORMATS = ("geojson", "json", "png", "geotiff")
MOST_WAITING = 32  # requests; the next one is told to come back
FORM_BYTES = 1 << 20  # of a request beside its file
NOT_INSTALLED, BUSY, BROKEN = 501, 503, 500
ABOUT = (
    "A picture and questions in, regions or a mask out. The fields `file`, `prompt` and `output_format` mean what they "
    "mean in the REST service of segment-geospatial (samgeo)."
)


def build_app(asker: Asker, limits: Limits, models: dict[str, Any]) -> "FastAPI":
    """Makes the service.

    Args:
        asker: Who answers.
        limits: What is taken.
        models: What ``/models`` says, see :func:`models_known`.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    try:
        from anyio import CapacityLimiter, to_thread
        from fastapi import FastAPI, File, Form, UploadFile
        from starlette.responses import Response
    except ImportError as error:
        raise MissingExtraError("fastapi", "web", error) from error
    from segearth import __version__

    app = FastAPI(title="segearth", version=__version__, description=ABOUT)
    one_at_a_time = CapacityLimiter(1)  # serves who waits in the order of their coming

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Says that the service runs."""
        return {"status": "ok", "version": __version__}

    @app.get("/models")
    async def list_models() -> dict[str, Any]:
        """Says which model answers, what its card tells, and which names there are."""
        return models

    @app.post("/segment/text", include_in_schema=False)  # segment-geospatial's name for it
    @app.post("/segment", response_model=None, responses=_RESPONSES)
    async def segment(
        file: Annotated[UploadFile, File(description="JPEG, PNG, TIFF, GeoTIFF, WebP or BMP.")],
        prompt: Annotated[list[str], Form(description="What to look for; may be given several times.")],
        output_format: Annotated[str, Form(description="geojson, json, png or geotiff.")] = "geojson",
        task: Annotated[str, Form(description="referring: the thing is named; reasoning: the need is.")] = "referring",
        answer: Annotated[bool, Form(description="Also answer in words, if the model can.")] = False,
    ) -> Response:
        """Finds what is asked for in a picture."""
        check_form(output_format, task, prompt)

        def work() -> tuple[bytes, str, str]:
            # Read here and not before: who waits holds a file on disk and not a decoded picture in memory.
            picture = read_upload(file.file.read(), file.filename or "", limits)
            answers = asker.ask(picture, prompt, task=task, answer=answer)
            ways = asker.ways_of(picture, prompt, answer)
            if output_format == "png":
                return mask_png(answers[0].mask), "image/png", "mask.png"
            if output_format == "geotiff":
                return mask_geotiff(picture, answers, asker.name), "image/tiff", "mask.tif"
            if output_format == "json":
                return dumped(boxes_json(picture, answers, ways)), "application/json", ""
            return dumped(collection_of(picture, answers, asker.name, ways)), "application/geo+json", ""

        content, media_type, name = await to_thread.run_sync(work, limiter=one_at_a_time)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'} if name else {}
        return Response(content, media_type=media_type, headers=headers)

    _answer_errors_in_json(app)
    app.add_middleware(LimitedBody, limits=limits)
    return app


def serve(asker: Asker, host: str, port: int, limits: Limits, models: dict[str, Any]) -> None:
    """Serves until it is interrupted.

    Args:
        asker: As for :func:`build_app`, as are ``limits`` and ``models``.
        host: Address to listen at; 127.0.0.1 is reached from this machine alone.
        port: To listen at.
        limits: What is taken.
        models: What ``/models`` says.

    Raises:
        MissingExtraError: FastAPI or uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "web", error) from error
    uvicorn.run(build_app(asker, limits, models), host=host, port=port, log_level="warning", server_header=False)


def models_known(segmenter: Segmenter, name: str) -> dict[str, Any]:
    """Returns what ``/models`` says: the model that answers, with the facts of its card, and the names of all.

    Args:
        segmenter: That answers.
        name: As it was opened by; only a name of the zoo has a card.
    """
    from segearth.zoo.cards import CARDS, is_named, list_models

    facts = facts_of(segmenter)
    loaded: dict[str, Any] = {"name": name, "protocol": facts.protocol, "side": facts.side, "device": facts.device}
    if is_named(name):
        card = CARDS[name]
        loaded |= {
            "summary": card.summary, "family": card.family, "parameters_in_millions": card.parameters,
            "licence": card.licence, "trained_on": list(card.trained_on), "notes": card.notes,
        }  # fmt: skip
    return {"models": list_models(), "loaded": [loaded]}


def check_form(output_format: str, task: str, prompts: Sequence[str]) -> None:
    """Checks what can be checked before the file is read.

    Raises:
        UnknownNameError: No such output format or task.
        SegEarthError: Several questions, and a format that holds one mask.
    """
    if output_format not in OUTPUT_FORMATS:
        raise UnknownNameError("output_format", output_format, OUTPUT_FORMATS)
    tasks = [name for name, targets in TARGETS_OF_TASK.items() if Regions in targets]
    if task not in tasks:
        raise UnknownNameError("task", task, tasks)
    if output_format == "png" and len(prompts) > 1:
        raise SegEarthError(
            f"a PNG holds one mask and {len(prompts)} questions were asked; send one prompt, or take "
            "output_format=geotiff"
        )


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What was found, in the form that was asked for.",
        "content": {"application/geo+json": {}, "application/json": {}, "image/png": {}, "image/tiff": {}},
    },
    413: {"description": "Too many bytes or pixels."},
    415: {"description": "No picture of a known kind."},
    422: {"description": "A picture that cannot be decoded, or a field that is missing or means nothing."},
    501: {"description": "A package for this kind of file is not installed on the server."},
    503: {"description": "Too many requests are waiting."},
}


class LimitedBody:
    """Bounds what requests bring: a body that grows too large is read no further, and of too many none is read.

    They are counted here and not where they are worked on: by then each would lie on the disk already.
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], limits: Limits) -> None:
        """Wraps an ASGI application."""
        self.app, self.limits, self.taken_on = app, limits, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hands a request on."""
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse

        if scope.get("method") != "POST":  # nothing that takes long
            await self.app(scope, receive, send)
            return
        if self.taken_on > MOST_WAITING:  # one of them is worked on
            detail = f"{MOST_WAITING} requests are waiting; ask again in a minute"
            await JSONResponse({"detail": detail}, BUSY, {"Retry-After": "60"})(scope, receive, send)
            return
        seen = 0

        def check(count: int) -> None:
            try:
                self.limits.check_bytes(count - FORM_BYTES)
            except UploadError as error:
                # FastAPI hands on this class alone; of others it makes a 400 that says nothing.
                raise HTTPException(error.status, str(error), {"Connection": "close"}) from error

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            check(max(seen, announced))
            return message

        lengths = [value for key, value in scope.get("headers", ()) if key == b"content-length"]
        announced = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        self.taken_on += 1
        try:
            await self.app(scope, counted, send)
        finally:
            self.taken_on -= 1


def _answer_errors_in_json(app: "FastAPI") -> None:
    """Lets every error be answered by ``{"detail": "what is wrong and what to do"}``."""
    from fastapi.exceptions import RequestValidationError
    from starlette.responses import JSONResponse

    def own(request: "Request", error: Exception) -> "Response":
        missing = isinstance(error, MissingExtraError)
        status = error.status if isinstance(error, UploadError) else NOT_INSTALLED if missing else UNREADABLE
        return JSONResponse({"detail": str(error)}, status)

    def form(request: "Request", error: Exception) -> "Response":
        assert isinstance(error, RequestValidationError)
        wrong = "; ".join(f"form field {each['loc'][-1]!r}: {each['msg']}" for each in error.errors())
        return JSONResponse({"detail": f"{wrong}. Send multipart/form-data as /docs describes"}, UNREADABLE)

    def broken(request: "Request", error: Exception) -> "Response":
        return JSONResponse({"detail": "the service made a mistake, which is in its log; tell whoever runs it"}, BROKEN)

    app.add_exception_handler(SegEarthError, own)
    app.add_exception_handler(RequestValidationError, form)
    app.add_exception_handler(Exception, broken)
