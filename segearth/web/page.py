"""The web page: ``segearth demo``. It only wires what :mod:`segearth.web.sessions` does to what is on the screen.

The page sends nothing anywhere: no telemetry, no public link, fonts of the reader's own machine.
"""

# Without `from __future__ import annotations`: gradio reads the annotation of an event, and as a text it could not find
# a name that is imported inside a function.
import os
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import MissingExtraError, SegEarthError
from segearth.web import sessions
from segearth.web.asking import MOST_LETTERS, Asker
from segearth.web.examples import EXAMPLES
from segearth.web.sessions import Session
from segearth.web.uploads import FILE_ENDINGS, KIND_NAMES, Limits

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}  # read when gradio is imported
SECONDS_KEPT = 3600  # of a session that nobody touches, and of gradio's copies of files
MOST_WAITING = 32  # questions
STYLE = """
footer { display: none !important; }
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#overlay img { object-fit: contain; }
#examples, #examples .gallery-container, #examples .grid-wrap, #examples .grid-container {
  height: auto !important; min-height: 0 !important; max-height: none !important; overflow: visible !important; }
"""


def build_page(asker: Asker, limits: Limits, folder: str | Path) -> Any:
    """Makes the page.

    Args:
        asker: Who answers.
        limits: What is taken.
        folder: For the files that users take away; nobody else should be able to read it.

    Returns:
        A ``gradio.Blocks``, not started yet.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    _check_gradio()
    import gradio as gr

    def shows_errors(step: Callable[..., Any]) -> Callable[..., Any]:
        """Lets the page show this library's errors in their own words; of others gradio says that there was one."""

        @wraps(step)
        def wrapped(*args: Any) -> Any:
            try:
                return step(*args)
            except SegEarthError as error:
                raise gr.Error(str(error), duration=15, title="That did not work") from error

        return wrapped

    def views(session: Session, opacity: float, suggested: tuple[str, ...] = ()) -> list[Any]:
        """Everything on the page that shows the newest answer, in the order of ``everything`` below."""
        number = len(session.answers) - 1 if session.answers else None
        asked = [(label, place) for place, label in enumerate(sessions.labels(session))]
        history = gr.Radio(choices=asked, value=number, visible=bool(asked))
        samples = [[question] for question in suggested]
        suggestions = gr.Dataset(samples=samples, visible=bool(samples)) if suggested or number is None else gr.skip()
        return [session, sessions.picture_line(session), history, suggestions, *answer_views(session, number, opacity)]

    def answer_views(session: Session | None, number: int | None, opacity: float) -> list[Any]:
        """What shows one answer: the picture, the words, the list and the files."""
        if session is None or number is None:
            hidden = [gr.DownloadButton(visible=False)] * 3
            bare = None if session is None else session.shown
            return [bare, "", gr.Dataframe(value=[], visible=False), *hidden]
        answer = session.answers[number]
        files = sessions.write_files(session, number, asker)
        return [
            sessions.drawn(session, number, opacity),
            sessions.described(answer, sessions.way_of(asker, session, number)),
            gr.Dataframe(
                value=sessions.region_rows(session.picture, answer), headers=sessions.region_headers(session.picture),
                visible=answer.present,
            ),
            gr.DownloadButton(value=files.png, visible=True),
            gr.DownloadButton(value=files.geotiff, visible=files.geotiff is not None),
            gr.DownloadButton(value=files.geojson, visible=files.geojson is not None),
        ]

    @shows_errors
    def pick(old: Session | None, opacity: float, event: gr.SelectData) -> list[Any]:
        example = EXAMPLES[event.index]
        session = sessions.begin_with_file(example.path, limits, folder, example.credit)
        sessions.forget(old)
        return views(session, opacity, example.questions)

    @shows_errors
    def upload(old: Session | None, path: str | None, opacity: float) -> list[Any]:
        if path is None:
            return [gr.skip()] * len(everything)
        session = sessions.begin_with_file(path, limits, folder)
        Path(path).unlink(missing_ok=True)  # gradio's copy of the upload
        sessions.forget(old)
        return views(session, opacity)

    @shows_errors
    def ask(session: Session | None, text: str, reasoning: bool, in_words: bool, opacity: float) -> list[Any]:
        return views(sessions.ask(asker, session, text, reasoning, in_words), opacity)

    def redraw(session: Session | None, number: int | None, opacity: float) -> np.ndarray | None:
        return None if session is None else sessions.drawn(session, number, opacity)

    def mark(session: Session | None, number: int | None, opacity: float, event: gr.SelectData) -> np.ndarray | None:
        return None if session is None else sessions.drawn(session, number, opacity, event.index[0] + 1)

    with gr.Blocks(title="segearth", analytics_enabled=False, delete_cache=(600, SECONDS_KEPT)) as page:
        state = gr.State(None, time_to_live=SECONDS_KEPT, delete_callback=sessions.forget)
        gr.Markdown(
            f"## segearth: ask a picture taken from above\nModel: `{asker.name}`. Masks can be wrong; the examples "
            "show what the small packaged model does well, not how it does on average."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=340):
                gr.Markdown("**1. Pick an example**")
                gallery = gr.Gallery(
                    [(str(example.path), example.title) for example in EXAMPLES], show_label=False, label="Examples",
                    columns=3, rows=2, height="auto", object_fit="cover", allow_preview=False, buttons=[],
                    interactive=False, elem_id="examples",
                )  # fmt: skip
                kinds = f"{', '.join(KIND_NAMES)} or GeoTIFF, at most {limits.megabytes:g} MB"
                gr.Markdown(f"**or bring your own picture**: {kinds}, {limits.megapixels:g} million pixels")
                file = gr.File(
                    label="Upload", show_label=False, file_types=list(FILE_ENDINGS), height=130, elem_id="upload"
                )
                gr.Markdown("**2. Ask, as often as you like**")
                question = gr.Textbox(
                    label="Question", show_label=False, placeholder="the buildings", lines=1, elem_id="question",
                    submit_btn=False, max_length=MOST_LETTERS,
                )  # fmt: skip
                suggestions = gr.Dataset(
                    components=[question], samples=[], label="Try", visible=False, elem_id="suggestions",
                    layout="gallery",
                )  # fmt: skip
                with gr.Row():
                    reasoning = gr.Checkbox(label="names a need, not a thing", elem_id="reasoning", min_width=150)
                    in_words = gr.Checkbox(label="answer in words too", elem_id="in_words", min_width=150)
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                history = gr.Radio(label="Asked so far", visible=False, elem_id="history")
            with gr.Column(scale=3, min_width=420):
                line = gr.Markdown(elem_id="picture_line")
                picture = gr.Image(
                    label="Picture and mask", interactive=False, format="png", height=560, elem_id="overlay",
                    buttons=["fullscreen"],
                )  # fmt: skip
                opacity = gr.Slider(0, 1, value=0.45, step=0.05, label="Opacity of the mask", elem_id="opacity")
                words = gr.Markdown(elem_id="answer")
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(f"Mask as {name}", visible=False, elem_id=f"get_{name.lower()}", size="sm")
                        for name in ("PNG", "GeoTIFF", "GeoJSON")
                    ]
                regions = gr.Dataframe(
                    interactive=False, visible=False, elem_id="regions", max_height=320, type="array", buttons=[],
                    label="Regions: choose a row to see it outlined", show_label=True,
                )  # fmt: skip
        of_answer = [picture, words, regions, *downloads]
        everything = [state, line, history, suggestions, *of_answer]
        gallery.select(pick, [state, opacity], everything, api_visibility="private")
        file.upload(upload, [state, file, opacity], everything, api_visibility="private")
        suggestions.click(lambda sample: sample[0], suggestions, question, api_visibility="private")
        gr.on(
            [button.click, question.submit], ask, [state, question, reasoning, in_words, opacity], everything,
            concurrency_limit=1, api_visibility="private",
        )  # fmt: skip
        history.input(answer_views, [state, history, opacity], of_answer, api_visibility="private")
        opacity.change(
            redraw, [state, history, opacity], picture, show_progress="hidden", trigger_mode="always_last",
            api_visibility="private",
        )  # fmt: skip
        regions.select(mark, [state, history, opacity], picture, show_progress="hidden", api_visibility="private")
    return page.queue(max_size=MOST_WAITING)


def run_page(asker: Asker, host: str, port: int, limits: Limits) -> None:
    """Shows the page until it is interrupted.

    Uploads and results lie in a folder that only this user can read, and that is deleted at the end.

    Args:
        asker: Who answers.
        host: Address to listen at; 127.0.0.1 is reached from this machine alone.
        port: To listen at.
        limits: What is taken.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="segearth-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when gradio is imported, and later
        _check_gradio()
        import gradio as gr

        fonts = ["system-ui", "sans-serif"]  # gradio's own theme fetches its fonts
        build_page(asker, limits, folder).launch(
            server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, footer_links=[],
            max_file_size=limits.bytes, inbrowser=False, css=STYLE,
            theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        )  # fmt: skip


def _check_gradio() -> None:
    """Imports gradio for the first time: what keeps it quiet must be set before."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("gradio", "web", error) from error
