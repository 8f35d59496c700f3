"""Routes of slides: which there are, and how they look."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, HTTPException, Path, Request, Response

from histoclick.server import tiles
from histoclick.server.library import Entry, Library
from histoclick.server.sessions import Sessions
from histoclick.server.threads import Staff
from histoclick.server.wire import SlideDetails, SlideInfo, Trouble
from histoclick.slides import Slide, problems

SlideId = Annotated[str, Path(alias="id", pattern=r"^[0-9a-f]{16}$", description="Of a slide.")]
Index = Annotated[str, Path(pattern=r"^[0-9]{1,7}$")]
Answers = dict[int | str, dict[str, Any]]
ERRORS: Answers = {
    code: {"model": Trouble, "description": why}
    for code, why in {
        400: "Cannot be done",
        401: "The token is missing",
        403: "Not allowed from there",
        404: "There is none",
        408: "Too slow",
        413: "Too large",
        421: "Another name",
        422: "Not as described here",
        503: "Too busy",
    }.items()
}
JPEG: Answers = {
    200: {"content": {"image/jpeg": {}}, "description": "A picture"},
    304: {"description": "As before"},
}


def router(library: Library, sessions: Sessions, staff: Staff) -> APIRouter:
    """``sessions``: know how many objects there are."""
    routes = APIRouter(tags=["slides"], responses=ERRORS)
    cache = tiles.TileCache()

    def info(entry: Entry, counts: dict[str, int | None]) -> SlideInfo:
        return SlideInfo(
            id=entry.id, name=entry.name, folder=entry.folder, width=entry.width,
            height=entry.height, mpp=entry.mpp, objects=counts.get(entry.key, 0),
            problem=entry.problem,
        )  # fmt: skip

    @routes.get("/slides")
    async def slides(tasks: BackgroundTasks) -> list[SlideInfo]:
        """All slides that are served."""
        counts = await staff.looks.run(sessions.counts)
        entries = await staff.looks.run(library.entries)
        if None in counts.values():
            tasks.add_task(staff.ahead.run, sessions.count)
        return [info(entry, counts) for entry in entries]

    @routes.get("/slides/{id}")
    async def details(slide_id: SlideId) -> SlideDetails:
        """One slide, and how it is shown."""

        def work() -> SlideDetails:
            entry, counts = library.entry(slide_id), sessions.counts()
            with library.open(slide_id) as slide:
                bounds = slide.bounds
                return SlideDetails(
                    **dict(info(entry, counts)),
                    bounds=[bounds.x0, bounds.y0, bounds.width, bounds.height],
                    unit=_unit(slide),
                    tile_size=tiles.TILE,
                    overlap=tiles.OVERLAP,
                    max_level=tiles.max_level(slide.width, slide.height),
                    background="#ffffff",
                    notes=[library.told(note) for note in problems(slide)],
                )

        return await staff.looks.run(work)

    @routes.get(
        "/slides/{id}/slide.dzi",
        response_class=Response,
        responses={200: {"content": {"application/xml": {}}, "description": "XML"}},
    )
    async def descriptor(slide_id: SlideId) -> Response:
        """DeepZoom's description of a slide."""
        entry = await staff.looks.run(lambda: library.entry(slide_id))
        if entry.problem:
            raise HTTPException(400, entry.problem)
        text = tiles.descriptor(entry.width, entry.height)
        return Response(text, media_type="application/xml")

    async def picture(
        request: Request, slide_id: str, what: str, read: Callable[[Slide], bytes]
    ) -> Response:
        """A JPEG from the browser's cache, ours, or the slide.

        The id names the content of the slide, so what was right once is right for ever.
        """
        key = f"{slide_id}/{what}"
        tag = f'"{hashlib.sha256(f"{tiles.QUALITY}/{key}".encode()).hexdigest()[:24]}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=86400"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)

        def work() -> bytes:
            with library.open(slide_id) as slide:
                return read(slide)

        content = cache.get(key)
        if content is None:
            try:
                content = await staff.tiles.run(work)
            except IndexError as error:
                raise HTTPException(404, f"no such tile ({error})") from None
            cache.put(key, content)
        return Response(content, media_type="image/jpeg", headers=headers)

    @routes.get(
        "/slides/{id}/slide_files/{level}/{column}_{row}.jpeg",
        response_class=Response,
        responses=JPEG,
    )
    async def tile(
        request: Request, slide_id: SlideId, level: Index, column: Index, row: Index
    ) -> Response:
        """A tile of DeepZoom."""

        def read(slide: Slide) -> bytes:
            return tiles.jpeg(tiles.pixels(slide, int(level), int(column), int(row)))

        return await picture(request, slide_id, f"{int(level)}/{int(column)}_{int(row)}", read)

    @routes.get("/slides/{id}/thumbnail.jpeg", response_class=Response, responses=JPEG)
    async def thumbnail(request: Request, slide_id: SlideId) -> Response:
        """The whole slide, small."""

        def read(slide: Slide) -> bytes:
            return tiles.jpeg(slide.thumbnail(tiles.THUMBNAIL))

        return await picture(request, slide_id, "thumbnail", read)

    return routes


def _unit(slide: Slide) -> list[float] | None:
    """Um per px along x and y."""
    if slide.mpp_x is None or slide.mpp_y is None:
        return None
    return [slide.mpp_x, slide.mpp_y]
