"""This program generates the JSON Schema of the contracts: `python -m backtestr_protocol.schema [--check]`.

It writes two files. `contracts.json` has every struct on the wire under `$defs`. `index.json` lists the structs of each
request and stream, and the error codes, for readers and for generators of other languages' types.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from . import PROTOCOL_VERSION
from .connection import Connection
from .envelopes import Envelope
from .errors import BY_CODE, RECOVERY_ACTIONS, ErrorData
from .message_types import REQUESTS, STREAMED, TOPIC_TYPES
from .messages import StreamOptions
from .topics import CLASSES

_DIRECTORY = Path(__file__).parents[1] / "schema"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def contracts() -> dict[str, Any]:
    """Return a schema with every struct on the wire under `$defs`, by its name."""
    structs: set[type[msgspec.Struct]] = {Connection, Envelope, ErrorData, StreamOptions, *STREAMED.values()}
    for request in REQUESTS.values():
        structs |= {request.data, request.success}
    _, definitions = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = " ".join(definition["description"].split())
    return {
        "$schema": _DIALECT,
        "$id": f"urn:backtestr:protocol:{PROTOCOL_VERSION}:contracts",
        "title": "Contracts of the backtestr wire protocol",
        "description": (
            "All but Connection, the connection file, are MessagePack maps. A string of contentEncoding base64 is "
            "MessagePack bin; a schema {} is any MessagePack value; keys that are not listed are ignored."
        ),
        "$defs": dict(sorted(definitions.items())),
    }


def index() -> dict[str, Any]:
    """Return the index of requests, topics, payload types of streams, and error codes."""
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "requests": {
            name: {
                "priority": row.priority,
                "right": row.right,
                "data": _reference(row.data),
                "success": _reference(row.success),
            }
            for name, row in REQUESTS.items()
        },
        "topics": [
            {
                "topic": f"{one.prefix}*" if one.prefix.endswith(".") else one.prefix,
                "socket": one.socket,
                "messageType": one.message_type,
                "type": TOPIC_TYPES[one.prefix][0],
                **({"otherTypes": list(others)} if (others := TOPIC_TYPES[one.prefix][1:]) else {}),
                "retained": one.retained,
            }
            for one in CLASSES
        ],
        "streams": {name: _reference(struct) for name, struct in STREAMED.items()},
        "errors": {
            code: {"severity": error.severity, "recoveryActions": msgspec.to_builtins(RECOVERY_ACTIONS[code])}
            for code, error in BY_CODE.items()
        },
    }


def rendered() -> dict[str, str]:
    """Return the text of each file of `protocol/schema/`, by file name."""
    return {
        name: msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
        for name, document in (("contracts.json", contracts()), ("index.json", index()))
    }


def drifted(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Return the names of the generated `files`, by name, whose text in `directory` is another."""
    return [
        name
        for name, text in files.items()
        if not (directory / name).is_file() or (directory / name).read_text("utf-8") != text
    ]


def write_or_check(
    arguments: list[str], program: str, description: str | None, default: Path, files: Mapping[str, str]
) -> int:
    """Write or check generated files, as the arguments of the program say, and return its exit code."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    parser.add_argument("--directory", type=Path, default=default, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.check:
        stale = drifted(options.directory, files)
        for name in stale:
            print(f"{name} is out of date; write it again with: {program}")
        return 1 if stale else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.directory / name).write_text(text, "utf-8", newline="\n")
    return 0


def main(arguments: list[str]) -> int:
    """Write or check the files, and return the exit code."""
    return write_or_check(arguments, "python -m backtestr_protocol.schema", __doc__, _DIRECTORY, rendered())


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"contracts.json#/$defs/{struct.__name__}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
