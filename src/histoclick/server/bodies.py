"""Bodies of JSON from strangers, which may be large: counted, then parsed in a thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)
MAX_BRACKETS, MAX_COMMAS = 25_000, 100_000  # what 10,000 points with their labels need, and more


def body(kind: type[T]) -> Callable[[Request], Coroutine[Any, Any, T]]:
    """For ``Depends``: the body as ``kind``, whatever the request says that it is."""

    async def parsed(request: Request) -> T:
        data = await request.body()
        return await anyio.to_thread.run_sync(_parsed, kind, data)

    return parsed


def described(kind: type[BaseModel]) -> dict[str, Any]:
    """The same for ``openapi_extra``."""
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"requestBody": {"content": content, "required": True}}


def _parsed(kind: type[T], data: bytes) -> T:
    """Raises ``HTTPException`` for too many values, which would keep everybody waiting, and
    ``RequestValidationError``."""
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS or data.count(b",") > MAX_COMMAS:
        raise HTTPException(413, "the request holds too many values; send fewer points")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        where = [{**each, "loc": ("body", *each["loc"])} for each in found]
        raise RequestValidationError(where) from None
