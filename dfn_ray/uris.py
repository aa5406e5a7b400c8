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
