"""Routes of annotations: what there is, what is done to it, files in and out."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

import shapely
from fastapi import APIRouter, BackgroundTasks, Header, HTTPException, Query, Response, UploadFile
from shapely import MultiPolygon, Polygon

from histoclick.annotations import FORMATS, Annotation, Canvas, Document, read, write
from histoclick.geometry import Rect
from histoclick.server.sessions import Author, Sessions
from histoclick.server.threads import Staff
from histoclick.server.viewing import ERRORS, SlideId
from histoclick.server.views import Views
from histoclick.server.wire import (
    MAX_CLASSES,
    ActionIn,
    Changes,
    ClassOut,
    Done,
    Id,
    Imported,
    MarkOut,
    ObjectOut,
    Ready,
    View,
)
from histoclick.session import (
    Action,
    Book,
    Class,
    Event,
    Import,
    Item,
    Outline,
    SetClasses,
    from_plain,
)
from histoclick.types import HistoclickError

MAX_OBJECTS = 50_000  # of a file
MAX_NOTES = 20  # of a file, that are told
PALETTE = ((0, 120, 200), (220, 60, 160), (0, 150, 130), (150, 110, 20), (110, 80, 220))
Client = Annotated[Id, Header(alias="X-Client", description="The browser tab or program.")]
User = Annotated[
    str | None,
    Header(alias="X-User", max_length=300, description="Who works there, percent-encoded."),
]
Seq = Annotated[int, Query(ge=0, le=2**53)]


def router(sessions: Sessions, views: Views, staff: Staff, user: str) -> APIRouter:
    """``user``: who works here if a request does not say it."""
    routes = APIRouter(tags=["annotations"], responses=ERRORS)

    def author(client: str, said: str | None) -> Author:
        name = user if said is None else unquote(said)
        if not name.isprintable() or len(name) > 100:
            raise HTTPException(422, "X-User: up to 100 printable characters")
        return Author(client, name)

    @routes.get("/slides/{id}/annotations", response_model=Changes)
    async def annotations(
        slide_id: SlideId, client: Client = "-", name: User = None, after: Seq = 0
    ) -> Response:
        """What changed after event ``after``."""
        who = author(client, name)
        return await staff.at(
            slide_id,
            lambda: _json(sessions.read(slide_id, lambda book: changes(book, after, who))),
        )

    @routes.post("/slides/{id}/events", response_model=Done)
    async def act(
        slide_id: SlideId,
        action: ActionIn,
        client: Client = "-",
        name: User = None,
        after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> Response:
        """Do something. The answer is what it changed, or all that changed after ``after``."""
        who = author(client, name)
        values = action.model_dump()
        id_ = values.pop("id")
        wanted = from_plain(values)

        def look(book: Book, event: Event | None) -> Done:
            since = after if after is not None else event.seq - 1 if event is not None else 0
            facts = {} if event is None else event.facts
            seconds = {
                "encode": float(facts.get("encode_seconds", 0.0)),
                "predict": float(facts.get("seconds", 0.0)),
            }
            seq = None if event is None else event.seq
            touched = [key for key, version in book.versions.items() if version == seq]
            one = touched[0] if len(touched) == 1 else None
            return Done(
                **dict(changes(book, since, who)), object=one, seconds=seconds,
                model=facts.get("model"),
            )  # fmt: skip

        return await staff.at(
            slide_id, lambda: _json(sessions.act(slide_id, wanted, id_, who, look))
        )

    @routes.post("/slides/{id}/ahead", status_code=202)
    async def ahead(
        slide_id: SlideId, view: View, tasks: BackgroundTasks, client: Client = "-"
    ) -> Ready:
        """Encode what a client looks at before it clicks. May be asked again to see how far."""
        rect0 = Rect(view.x, view.y, view.width, view.height)
        seen = await staff.looks.run(lambda: views.look_ahead(slide_id, rect0, view.mpp, client))
        if not seen.ready:
            tasks.add_task(staff.ahead.run, seen.encode)
        return Ready(ready=seen.ready)

    @routes.post("/slides/{id}/import", response_model=Imported)
    async def import_file(
        slide_id: SlideId, file: UploadFile, client: Client = "-", name: User = None
    ) -> Response:
        """Objects from a file of another program, in addition to what is there."""
        who = author(client, name)

        def work() -> Response:
            canvas = sessions.read(slide_id, lambda book: Canvas.of(book.slide))
            document = _read(file, canvas)
            return _json(_import(sessions, slide_id, document, who))

        return await staff.files.run(work)

    @routes.get(
        "/slides/{id}/export",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}, "description": "A file"}},
    )
    async def export(
        slide_id: SlideId, format_name: Annotated[str, Query(alias="format")] = "qupath"
    ) -> Response:
        """All objects as a file. What the format cannot hold is told in ``X-Notes``."""
        if format_name not in FORMATS or FORMATS[format_name].write is None:
            known = ", ".join(key for key, each in FORMATS.items() if each.write is not None)
            raise HTTPException(400, f"no format '{format_name[:40]}' can be written; use {known}")

        def work() -> Response:
            document, canvas = sessions.document(slide_id)
            return _written(document, canvas, format_name)

        return await staff.files.run(work)

    return routes


def changes(book: Book, after: int, who: Author) -> Changes:
    """What changed on a slide after an event."""
    change = book.since(after)
    return Changes(
        seq=book.seq,
        classes=[
            ClassOut(name=each.name, colour=list(each.colour), key=each.key)
            for each in book.classes
        ],
        objects=[object_of(book.objects[id_], book) for id_ in change.objects],
        removed=list(change.removed),
        can_undo=book.can_undo(who.client, who.user),
        can_redo=book.can_redo(who.client),
    )


def object_of(item: Item, book: Book) -> ObjectOut:
    """One object for the wire."""
    shape, slide = item.shape, book.slide
    geometry = area = None
    if isinstance(shape, Polygon | MultiPolygon) and not shape.is_empty:
        geometry = json.loads(shapely.to_geojson(shape))
    if (
        geometry is not None
        and shape is not None
        and slide.mpp_x is not None
        and slide.mpp_y is not None
    ):
        area = shape.area * slide.mpp_x * slide.mpp_y
    window = None
    if item.window is not None and item.grid is not None:
        rect0 = item.grid.rect0(item.window)
        window = [rect0.x0, rect0.y0, rect0.width, rect0.height]
    return ObjectOut(
        id=item.id,
        label=item.label,
        name=item.name,
        mpp=item.mpp,
        version=book.versions[item.id],
        clicks=[MarkOut(x=mark.x, y=mark.y, positive=mark.positive) for mark in item.clicks],
        box=None if item.box is None else list(item.box),
        geometry=geometry,
        area_um2=area,
        quality=item.quality,
        window=window,
    )


def _json(answer: Changes) -> Response:
    """Written here, in the thread of the work: of a large answer it takes seconds, in which the
    event loop would answer nobody."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _read(file: UploadFile, canvas: Canvas) -> Document:
    """The annotations in a file that somebody sent."""
    suffix = "".join(Path(file.filename or "").suffixes[-2:]).lower()
    suffix = suffix if suffix.replace(".", "").isalnum() and len(suffix) < 20 else ""
    with tempfile.TemporaryDirectory(prefix="histoclick-") as folder:
        path = Path(folder) / f"file{suffix}"
        with path.open("wb") as copy:
            while chunk := file.file.read(1 << 20):
                copy.write(chunk)
        try:
            document = read(path, canvas)
        except HistoclickError as error:
            raise HistoclickError(str(error).replace(str(path), file.filename or "it")) from None
    if len(document.annotations) > MAX_OBJECTS:
        raise HistoclickError(
            f"the file holds {len(document.annotations)} objects, more than {MAX_OBJECTS}; split it"
        )
    return document


def _import(sessions: Sessions, slide_id: str, document: Document, who: Author) -> Imported:
    """Put the objects of a file on a slide, and their classes into the list."""
    outlines = tuple(
        Outline(each.shape, each.label[:200], each.name[:200]) for each in document.annotations
    )

    def done(book: Book, event: Event | None) -> Imported:
        after = event.seq - 1 if event is not None else 0
        notes = [note[:300] for note in document.notes[:MAX_NOTES]]
        if (more := len(document.notes) - MAX_NOTES) > 0:
            notes.append(f"and {more} more notes of this kind")
        return Imported(**dict(changes(book, after, who)), notes=notes)

    def act(action: Action, look: Callable[[Book, Event | None], Any]) -> Any:
        return sessions.act(slide_id, action, str(uuid.uuid4()), who, look)

    classes = sessions.read(slide_id, lambda book: _classes(book.classes, document.annotations))
    if outlines and classes is not None:
        act(SetClasses(classes), lambda *_: None)
    imported: Imported = act(Import(outlines), done)
    return imported


def _classes(
    known: tuple[Class, ...], annotations: tuple[Annotation, ...]
) -> tuple[Class, ...] | None:
    """The classes with those of a file that are new; ``None`` if none is."""
    found: dict[str, Class] = {}
    names = {each.name for each in known}
    for each in annotations:
        label = each.label[:200]
        if label and label not in names and label not in found:
            colour = each.colour or PALETTE[len(found) % len(PALETTE)]
            found[label] = Class(label, colour)
    new = tuple(found.values())[: max(0, MAX_CLASSES - len(known))]
    return (*known, *new) if new else None


def _written(document: Document, canvas: Canvas, format_name: str) -> Response:
    """A file of the annotations."""
    suffix = FORMATS[format_name].suffixes[0]
    stem = Path(canvas.name).stem or "annotations"
    with tempfile.TemporaryDirectory(prefix="histoclick-") as folder:
        path = Path(folder) / f"annotations{suffix}"
        try:
            losses = write(document, path, format_name, canvas)
        except HistoclickError as error:
            raise HistoclickError(str(error).replace(str(path), "the file")) from None
        content = path.read_bytes()
    notes = [note[:200] for note in (*document.notes, *losses)[:MAX_NOTES]]
    disposition = f"attachment; filename*=UTF-8''{quote(stem + suffix)}"
    headers = {"Content-Disposition": disposition, "X-Notes": quote(json.dumps(notes))}
    return Response(content, media_type="application/octet-stream", headers=headers)
