"""What a URI must not hold: it ends up in run.json, in listings and in logs."""

from __future__ import annotations

import re

_ACCOUNT_SCHEMES = ("abfs", "abfss", "az", "wasb", "wasbs")
"""Azure writes `container@account`: names, no secret."""
_QUERY = re.compile(r"[?&][A-Za-z][\w.-]*=")
"""`?name=value`; a glob's `?` is not followed by a name and `=`."""


def secret_in(uri: str) -> str | None:
    """Where a URI holds a secret, or may: "a user or password", "a query"; None when it does not. Paths never do."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return None
    user, at, host = rest.partition("/")[0].rpartition("@")
    scheme = scheme.rpartition(":")[2]  # of a chain like `simplecache::s3`
    if at and (":" in user or scheme not in _ACCOUNT_SCHEMES):
        return "a user or password"
    _, colon, port = host.partition(":")
    # A secret key may have a slash in it, which ends what looks like the host.
    if colon and not port.isdigit() and not host.startswith("arn:"):
        return "a user or password"
    return "a query" if _QUERY.search(rest) else None


_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})|[\udc80-\udcff]")


def sayable(path: str) -> str:
    r"""A path or key as text that UTF-8 can hold; other paths give other texts.

    A byte of a file name that is no UTF-8 (Python holds it as a lone surrogate) becomes `\xHH`. A backslash that stands
    before `xHH` in the name itself becomes `\x5c`, so that no two names are spelled alike. All others stay as they are.
    """
    return _ESCAPED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", path)
