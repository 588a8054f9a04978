"""Refuse fields that a contract does not have, where a sender would be misled if they were ignored.

Readers ignore fields that they do not know (PROTOCOL.md, "Words and notation"). A misspelt field of a backtest is
another matter: the backtest would run with the default.
"""

from __future__ import annotations

import msgspec

from .errors import ValidationError, did_you_mean, quoted

_map_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


def check_known_fields(data: bytes | msgspec.Raw, contract: type[msgspec.Struct], hint: str, path: str = "$") -> None:
    """Raise `ValidationError` for a map with a field that `contract` does not have, with the near miss and `hint`.

    `path` is where the map is in the request.

    Data that are no map with texts as keys are left to the decoder of the contract, which says so.
    """
    try:
        came = _map_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    known = contract.__struct_encode_fields__
    for name in came:
        if name not in known:
            shown = quoted(name)
            raise ValidationError(
                f"{path}.{shown[1:-1]}: unknown field {shown}{did_you_mean(name, known)} ({', '.join(known)}); {hint}",
                path=f"{path}.{shown[1:-1]}",
                expected=list(known),
                got=shown,
            )
