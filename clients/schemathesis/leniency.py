"""What the service reads beyond what its document says.

The document says the plain form of protobuf's JSON. Every reader of protobuf's JSON also takes
lowerCamelCase names, enums by number, numbers as strings, and null for "not set"; the service says
so, and does. So data that the document refuses may be taken, but only where its plain form is data
that the document takes. That is what is checked here, in place of "it has to be refused"."""

from typing import Any

import schemathesis
from schemathesis.checks import CHECKS, CheckContext
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.jsonschema import make_validator
from schemathesis.specs.openapi import checks

refuses = checks.negative_data_rejection
CHECKS.unregister(refuses.__name__)


@schemathesis.check
def negative_data_rejection(
    ctx: CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    try:
        return refuses(ctx, response, case)
    except AcceptedNegativeData:
        if is_plainly_right(case):
            return None
        raise


def is_plainly_right(case: schemathesis.Case) -> bool:
    operation = case.operation
    validator = operation.schema.adapter.jsonschema_validator_cls
    # An empty parameter is as good as none.
    query = {name: value for name, value in (case.query or {}).items() if value != ""}
    parts = [
        (dict(case.path_parameters or {}), operation.path_parameters.schema),
        (query, operation.query.schema),
    ]
    body = operation.get_body_for_media_type(case.media_type) if case.media_type else None
    if body is not None:
        content = case.body
        if "{environment}" in case.path and isinstance(content, dict):
            # Then the attribute of this name is the application's own, and may be anything.
            context = content.get("context")
            if isinstance(context, dict):
                context = {name: it for name, it in context.items() if name != "environment"}
                content = content | {"context": context}
        parts.append((content, body.optimized_schema))
    for value, schema in parts:
        plain_value = plain(value, schema, schema)
        if not make_validator(schema, validator).is_valid(plain_value):
            return False
    return True


def plain(value: Any, schema: Any, root: Any) -> Any:
    """A value in the form that the document says."""
    schema = resolved(schema, root)
    for choice in schema.get("oneOf", []):
        if resolved(choice, root).get("type") != "null":
            return plain(value, choice, root)
    match schema.get("type"), value:
        case "object", dict():
            known = schema.get("properties", {})
            names = {camel(name): name for name in known}
            other = schema.get("additionalProperties")
            fields = {names.get(name, name): it for name, it in value.items() if it is not None}
            return {
                name: plain(it, known.get(name, other if isinstance(other, dict) else {}), root)
                for name, it in fields.items()
            }
        case "array", list():
            return [plain(item, schema["items"], root) for item in value]
        case "string", int() if "enum" in schema and 0 <= value < len(schema["enum"]):
            return schema["enum"][value]
        case "string", str() if "enum" in schema and value.isdecimal():
            return plain(int(value), schema, root)
        case "string", int() if schema.get("format") == "int64":
            return str(value)
        case "integer" | "number", str():
            return number(value)
    return value


def resolved(schema: Any, root: Any) -> dict:
    while isinstance(schema, dict) and "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    return schema if isinstance(schema, dict) else {}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def number(text: str) -> Any:
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() else value
