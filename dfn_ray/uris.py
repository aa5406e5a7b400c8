"""What a URI must not hold, since it ends up in run.json, in listings and in logs, and the one way to spell its scheme.

For what people write, where they write it: recipes and command lines. What a listing gave is no URI of theirs, and
may hold anything.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from dfn_ray.errors import InputError

_ACCOUNT_SCHEMES = ("abfs", "abfss", "az", "wasb", "wasbs")
"""Azure writes `container@account`: names, no secret."""
_PARAMETER = re.compile(r"[?&;#]([\w.%-]+)=[^&;#]")
"""`?name=value`; a glob's `?` is not followed by a name and `=`."""
_SECRET_NAMES = frozenset({"auth", "jwt", "key", "pass", "pwd", "sas", "sig"})
_SECRET_PARTS = (
    "accessid", "accesskey", "apikey", "authorization", "credential", "passwd", "password", "secret", "signature",
    "token",
)  # fmt: skip
"""In the names of parameters, without `-`, `_` and `.`: X-Amz-Signature, GoogleAccessId, AWSAccessKeyId, api_key."""


def secret_in(uri: str) -> str | None:
    """Where a URI holds a secret: "a user or password", "the parameter sig"; None when it does not. Paths never do."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return None
    user, at, host = rest.partition("/")[0].rpartition("@")
    scheme = scheme.rpartition(":")[2].lower()  # of a chain like `simplecache::s3`
    if at and (":" in user or scheme not in _ACCOUNT_SCHEMES):
        return "a user or password"
    _, colon, port = host.partition(":")
    # A secret key may have a slash in it, which ends what looks like the host.
    if colon and not port.partition("?")[0].isdigit() and not host.startswith("arn:"):
        return "a user or password"
    for name in map(unquote, _PARAMETER.findall(rest)):
        plain = re.sub(r"[-_.]", "", name.lower())
        if plain in _SECRET_NAMES or any(part in plain for part in _SECRET_PARTS):
            return f"the parameter {name}"
    return None


def normalised(uri: str) -> str:
    """A URI with its scheme in lower case: `S3://bucket` is `s3://bucket`."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.:-]*", scheme):
        return uri
    before, colon, last = scheme.rpartition(":")  # `local-dir:S3` keeps what is before
    return f"{before}{colon}{last.lower()}://{rest}"


def written_uri(text: str) -> str:
    """A URI as it was written on a command line, normalised. Raises InputError when it holds a secret."""
    if where := secret_in(text):
        raise InputError(
            f"a {text.partition('://')[0]}:// URI holds {where}, which would end up in logs; it is not repeated here. "
            "Leave it out and give credentials by the environment, as the store's own tools take them"
        )
    return normalised(text)


_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})|[\udc80-\udcff]")


def sayable(path: str) -> str:
    r"""A path or key as text that UTF-8 can hold; other paths give other texts.

    A byte of a file name that is no UTF-8 (Python holds it as a lone surrogate) becomes `\xHH`. A backslash that stands
    before `xHH` in the name itself becomes `\x5c`, so that no two names are spelled alike. All others stay as they are.
    """
    return _ESCAPED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", path)
