"""A body → the question in it: JSON with pictures in base64, or a form with a picture as a file.

One way for each content type. In a form, lists are fields that are repeated, and ``where`` is JSON.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from littune.apps.server.http.refusals import Refusal
from littune.apps.server.limits import MAX_LABELS, MAX_TEMPLATES
from littune.apps.server.schemas import Question

Asked = TypeVar("Asked", bound=Question)

JSON, FORM = "application/json", "multipart/form-data"

_MAX_FIELDS = MAX_LABELS + MAX_TEMPLATES + 10
_FIELD_BYTES = 1 << 16
_EPILOGUE = 64
_PROBLEMS_SHOWN = 3


def question(kind: type[Asked], *, form: bool = True) -> Callable[[Request], Awaitable[Asked]]:
    """What reads a ``kind`` from a request, and raises a ``Refusal`` (415 or 422) where there is none.

    Args:
        kind: what is asked.
        form: whether a form is taken, too.
    """

    async def read(request: Request) -> Asked:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if "content-encoding" in request.headers:
            raise Refusal(415, "the body has a content-encoding; send it as it is")
        try:
            if content_type == JSON:
                return kind.model_validate_json(await request.body(), strict=True)
            if content_type == FORM and form:
                return kind.model_validate(await _read_form(request, kind))
        except ValidationError as error:
            raise Refusal(422, _problems(error)) from None
        known = f"{JSON} or {FORM}" if form else JSON
        raise Refusal(415, f"the content-type is {content_type[:100]!r}; send {known}")

    return read


def body_schema(kind: type[Question], *, form: bool = True) -> dict[str, Any]:
    """How a body is described in OpenAPI."""
    schema = kind.model_json_schema()
    content = {JSON: {"schema": schema}}
    if form:
        content[FORM] = {"schema": {**schema, "properties": _in_form(schema["properties"])}}
    return {"requestBody": {"required": True, "content": content}}


def _in_form(properties: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(properties)
    changed["image"] = {"type": "string", "contentMediaType": "application/octet-stream", "description": "A file."}
    if "where" in changed:
        changed["where"] = {"type": "string", "contentMediaType": JSON, "contentSchema": changed["where"]}
    return changed


async def _read_form(request: Request, kind: type[Question]) -> dict[str, object]:
    # The parser would not notice, and leave a file open.
    if not (await request.body())[-_EPILOGUE:].rstrip().endswith(b"--"):
        raise Refusal(422, "the form cannot be read: it has no end")
    try:
        async with request.form(max_files=1, max_fields=_MAX_FIELDS, max_part_size=_FIELD_BYTES) as form:
            return {name: await _field(form, name, repeated=name in kind.lists) for name in form}
    except HTTPException as error:
        raise Refusal(422, f"the form cannot be read: {error.detail}") from None


async def _field(form: FormData, name: str, *, repeated: bool) -> object:
    values = form.getlist(name)
    if name == "image":
        if len(values) != 1 or not isinstance(values[0], UploadFile):
            raise Refusal(422, 'image: it must be one file of the form, as in curl -F "image=@photo.jpg"')
        return await values[0].read()
    if any(isinstance(value, UploadFile) for value in values):
        raise Refusal(422, f"{name[:100]}: it must be a plain field, not a file")
    if repeated:
        return values
    if len(values) > 1:
        raise Refusal(422, f"{name[:100]}: it is given {len(values)} times; give it once")
    return _parsed(values[0]) if name == "where" else values[0]


def _parsed(value: object) -> object:
    try:
        return json.loads(str(value))
    except (ValueError, RecursionError) as error:
        raise Refusal(422, f"where: it must be JSON ({str(error)[:100]})") from None


def _problems(error: ValidationError) -> str:
    """The first few things that are wrong, in a line."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [_problem(one["loc"], one["msg"]) for one in found[:_PROBLEMS_SHOWN]]
    more = [f"and {len(found) - _PROBLEMS_SHOWN} more"] if len(found) > _PROBLEMS_SHOWN else []
    return "; ".join([*lines, *more])


def _problem(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part)[:100] for part in place)
    message = message.removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
