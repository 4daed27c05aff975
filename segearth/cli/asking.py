"""Commands that ask: ``predict``, ``scene``, ``scenes``, ``serve`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segearth.cli.common import DeviceOption, ModelOption, PrecisionOption, say_who_answers, whole_numbers
from segearth.segmenter import Segmenter

BandsOption = Annotated[str | None, typer.Option(help="Bands shown as red, green, blue, such as 4,3,2, or one.")]
ModeOption = Annotated[str, typer.Option(help="auto, tile or whole: who can answer, see docs/geo.md.")]
HostOption = Annotated[str, typer.Option(help="Address to listen at; 127.0.0.1 is reached from this machine alone.")]
MegabytesOption = Annotated[float, typer.Option(min=0.001, help="Largest file that is taken, in millions of bytes.")]
MegapixelsOption = Annotated[float, typer.Option(min=0.001, help="Largest picture, in millions of pixels.")]
TilesOption = Annotated[str, typer.Option(help="auto: look at a large picture tile by tile; off: shrink it.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="To listen at.")]


def predict(
    image: Annotated[Path, typer.Argument(help="Picture to ask about.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Mask to write, .png, .tif or .bmp: 0 and 255, of the picture's size.")]
    = Path("mask.png"),
    overlay: Annotated[Path | None, typer.Option(help="Also write the picture with the mask drawn on it.")] = None,
    doubt: Annotated[bool, typer.Option(help="Let the overlay show how sure the model is of each pixel.")] = False,
    reasoning: Annotated[bool, typer.Option(help="The question names a need, not a thing.")] = False,
    answer: Annotated[bool, typer.Option(help="Also answer in words.")] = False,
    tiles: TilesOption = "off",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers one question about one picture."""
    from segearth.errors import ConfigError
    from segearth.inference.summary import summary_of
    from segearth.inference.tiled import for_picture
    from segearth.inference.visualize import check_mask_path, check_picture_path, overlay_doubt, save_mask, save_picture
    from segearth.inference.visualize import overlay as draw
    from segearth.utils.files import check_apart, read_image
    from segearth.utils.image_headers import has_place
    from segearth.zoo.opening import load

    if doubt and overlay is None:
        raise ConfigError("--doubt changes the overlay; name a file for it with --overlay")
    picture = read_image(image)
    check_mask_path(out)
    if overlay is not None:
        check_picture_path(overlay)
    check_apart(image, out, *([overlay] if overlay else []))
    tiled = _are_tiles(tiles)
    say_who_answers(model)
    segmenter, note = for_picture(load(model, device, precision), picture, question, tiled)
    if note:
        typer.secho(note, err=True)
    if has_place(image):
        typer.secho("note: the mask will not say where on the map it lies; segearth scene keeps that", err=True)
    segmenter.set_image(picture)
    (result,) = segmenter.predict(
        [question], task="reasoning" if reasoning else "referring", answer=answer, return_logits=doubt
    )
    save_mask(out, result.mask)
    if overlay is not None:
        logits = result.logits  # asked for only where doubt is to be drawn
        drawn = draw(picture, result.mask) if logits is None else overlay_doubt(picture, result.mask, logits)
        save_picture(overlay, drawn)
    typer.echo(f"{out}: {summary_of(result)}")
    if result.answer is not None:
        typer.echo(result.answer)


def scene(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE QUESTION OUTPUT",
            help="Raster to ask, what to look for, and the GeoTIFF to write; with --questions no QUESTION.",
        ),
    ],
    vector: Annotated[Path | None, typer.Option(help="Also write polygons: .geojson, .gpkg or .fgb.")] = None,
    questions: Annotated[Path | None, typer.Option(help="File with a question a line, in place of QUESTION.")] = None,
    model: ModelOption = None,
    mode: ModeOption = "auto",
    bands: BandsOption = None,
    resolution: Annotated[str, typer.Option(help="Metres a pixel to look at it, auto, or native.")] = "auto",
    aoi: Annotated[str | None, typer.Option(help="Area of interest: a vector file, or SRID=4326;POLYGON((…)).")] = None,
    tile_size: Annotated[int | None, typer.Option(min=32, help="Side of a tile; the model's own if left out.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Pixels that tiles share; a quarter if left out.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Tiles at a time.")] = None,
    min_area: Annotated[float, typer.Option(min=0, help="Leave out smaller polygons: m2, or pixels without a CRS.")]
    = 0.0,
    simplify: Annotated[float, typer.Option(min=0, help="Simplify outlines by so many pixels.")] = 0.0,
    right_angles: Annotated[bool, typer.Option(help="Draw outlines at right angles where that fits.")] = False,
    cog: Annotated[bool, typer.Option(help="Write a cloud-optimised GeoTIFF.")] = False,
    restart: Annotated[bool, typer.Option(help="Forget what an interrupted run left.")] = False,
    reasoning: Annotated[bool, typer.Option(help="The question names a need, not a thing.")] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers questions about a georeferenced raster of any size, on its own grid."""
    from segearth.inference.scene import read_questions, segment_scene
    from segearth.inference.scene_types import SceneOptions
    from segearth.inference.summary import summary_of_scene
    from segearth.zoo.opening import load, model_state, name_of

    wanted = 2 if questions is not None else 3
    if len(arguments) != wanted:
        raise typer.BadParameter(f"give {wanted} of them, here are {len(arguments)}; put a question between quotes")
    source, output = arguments[0], arguments[-1]
    texts = [arguments[1]] if questions is None else read_questions(questions)
    options = SceneOptions(
        mode=mode, bands=_bands(bands), resolution=_resolution(resolution), aoi=aoi, tile_size=tile_size,
        overlap=overlap, batch_size=batch_size, min_area=min_area, simplify=simplify, right_angles=right_angles,
        cog=cog, restart=restart,
    )  # fmt: skip
    say_who_answers(model)
    result = segment_scene(
        load(model, device, precision), source, texts, output, vector=vector,
        task="reasoning" if reasoning else "referring", model=name_of(model), weights=model_state(model),
        options=options,
    )  # fmt: skip
    typer.echo(summary_of_scene(result))


def scenes(
    sources: Annotated[list[str], typer.Argument(help="Rasters, such as *.tif.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, polygons and manifest.jsonl.")],
    ask: Annotated[list[str] | None, typer.Option(help="What to look for; may be given again.")] = None,
    questions: Annotated[Path | None, typer.Option(help="File with a question a line, in place of --ask.")] = None,
    vector: Annotated[str | None, typer.Option(help="Also write polygons: .geojson, .gpkg or .fgb.")] = None,
    model: ModelOption = None,
    mode: ModeOption = "auto",
    bands: BandsOption = None,
    resolution: Annotated[str, typer.Option(help="Metres a pixel to look at them, auto, or native.")] = "auto",
    restart: Annotated[bool, typer.Option(help="Forget what interrupted runs left.")] = False,
    reasoning: Annotated[bool, typer.Option(help="The questions name needs, not things.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Scenes at a time; one a GPU if left out.")] = None,
    address: Annotated[str, typer.Option(help="Of a Ray cluster; local: this machine alone.")] = "local",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers the same questions about many rasters; a second start skips what is done."""
    from segearth.archives import FAILED, ArchiveJob, run_archive
    from segearth.inference.scene import read_questions
    from segearth.inference.scene_types import SceneOptions

    texts = [*(ask or []), *(read_questions(questions) if questions is not None else [])]
    if not texts:
        raise typer.BadParameter("give at least one question with --ask, or a file of them with --questions")
    options = SceneOptions(mode=mode, bands=_bands(bands), resolution=_resolution(resolution), restart=restart)
    job = ArchiveJob(
        tuple(texts), out, model, "reasoning" if reasoning else "referring", vector, options, device, precision
    )  # fmt: skip
    say_who_answers(model)
    result = run_archive(
        sources, job, workers=workers, address=address,
        on_line=lambda line: typer.echo(f"{line['source']}: {line.get('error') or line['state']}"),
    )  # fmt: skip
    typer.echo(", ".join(f"{number} {state}" for state, number in sorted(result.counts.items())))
    if result.counts[FAILED]:
        raise typer.Exit(1)


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    model: ModelOption = None,
    max_megabytes: MegabytesOption = 64,
    max_megapixels: MegapixelsOption = 50,
    tiles: TilesOption = "auto",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers over HTTP: pictures and questions in, GeoJSON or masks out."""
    from segearth.web.addresses import address_of
    from segearth.web.asking import Asker
    from segearth.web.service import models_known
    from segearth.web.service import serve as listen
    from segearth.web.uploads import Limits

    tiled = _are_tiles(tiles)
    segmenter, name = _opened_for(host, port, model, device, precision)
    typer.echo(f"{name} at {address_of(host, port)}/segment, described at /docs; Ctrl+C ends it")
    known = models_known(segmenter, name)
    listen(Asker(segmenter, name, tiled), host, port, Limits(max_megabytes, max_megapixels), known)


def demo(
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    model: ModelOption = None,
    max_megabytes: MegabytesOption = 64,
    max_megapixels: MegapixelsOption = 50,
    tiles: TilesOption = "auto",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Shows a web page on which pictures can be asked."""
    from segearth.web.addresses import address_of
    from segearth.web.asking import Asker
    from segearth.web.page import run_page
    from segearth.web.uploads import Limits

    tiled = _are_tiles(tiles)
    segmenter, name = _opened_for(host, port, model, device, precision)
    typer.echo(f"{name} at {address_of(host, port)}; Ctrl+C ends it")
    run_page(Asker(segmenter, name, tiled), host, port, Limits(max_megabytes, max_megapixels))


def _opened_for(
    host: str, port: int, model: str | None, device: str | None, precision: str | None
) -> tuple[Segmenter, str]:
    """Opens a model and says its name, once it is known that the address is free: opening takes a while."""
    from segearth.web.addresses import check_free
    from segearth.zoo.opening import default_source, load

    check_free(host, port)
    source = model or default_source()
    return load(source, device, precision), str(source)


def _are_tiles(choice: str) -> bool:
    from segearth.errors import UnknownNameError

    if choice not in ("auto", "off"):
        raise UnknownNameError("choice of tiles", choice, ["auto", "off"])
    return choice == "auto"


def _bands(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    numbers = whole_numbers(text)
    return numbers[0] if len(numbers) == 1 else numbers


def _resolution(text: str) -> float | str | None:
    if text in ("auto", "native"):
        return "auto" if text == "auto" else None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no resolution; give metres a pixel, auto or native") from None
