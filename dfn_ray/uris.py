"""What a URI may be: its scheme, what it must not hold, and the one way to spell it.

For what people write, where they write it: recipes and command lines. What a listing gave is no URI of theirs, and
may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from dfn_ray.errors import InputError, shortened

LOCAL_SCHEMES = ("file", "local")
S3_SCHEMES = ("s3", "s3a")
HTTP_SCHEMES = ("http", "https")
EXTRAS = {
    "gs": "gcs", "gcs": "gcs",
    "az": "azure", "abfs": "azure", "abfss": "azure",
    "hf": "hf",
}  # fmt: skip
"""Scheme -> the extra of dfn_ray that brings what reads it."""
SCHEMES = frozenset((*LOCAL_SCHEMES, *S3_SCHEMES, *HTTP_SCHEMES, *EXTRAS, "memory"))
"""All that are read. fsspec knows more, which no test covers: some are no stores, or read what the recipe does not name.

`memory` is a store of this process alone, for tests.
"""
READ_ONLY_SCHEMES = (*HTTP_SCHEMES, "hf")
"""Nothing is written to web servers, and on the hub each file of a run would be a commit."""
LONGEST_URI = 8_192
"""Characters. Linux takes paths of 4,096 bytes, S3, Google and Azure names of 1,024; patterns with braces may be longer."""
_READABLE = "file://, s3://, http(s)://, gs://, az://, abfs(s):// and hf://"
_WRITABLE = "file://, s3://, gs://, az:// and abfs(s)://"
EMPTY = "is empty; name a path (. is the folder you are in), or a URI with its scheme"
_LOCAL_FOLDER = "local-dir:"
_SURROGATES = re.compile("[\ud800-\udfff]")
"""In UTF-8 there are none."""
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Those that do not stand for a byte of a file's name that is not UTF-8."""
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


def scheme_of(uri: str) -> str:
    """The scheme of a URI as fsspec has it. A path from the root has none, whatever it holds: `/data/a::b` is no chain."""
    if uri.startswith("/"):
        return "file"
    scheme, *rest = re.split("::|://", uri, maxsplit=1)
    return scheme if rest else "file"


def is_empty(uri: str) -> bool:
    """True for what names nothing, and which clients take for the folder they run in: "", `file:`, `file://`."""
    scheme, colon, rest = uri.strip().partition(":")
    is_local = scheme.lower() in LOCAL_SCHEMES and bool(colon)
    return not uri.strip() or (is_local and rest in ("", "//"))


def uri_problem(uri: str) -> str | None:
    """What keeps a path, URI or pattern from naming anything that can be read, as a sentence goes on behind it; or None.

    `local-dir:` in front of a network's folder is no scheme.
    """
    return next(_flaws(uri.removeprefix(_LOCAL_FOLDER)), None)


def target_uri_problem(uri: str) -> str | None:
    """The same of a path or URI that is to be written to."""
    scheme = scheme_of(uri).lower()
    if scheme in READ_ONLY_SCHEMES:
        return f"cannot be written to: {scheme}:// is only read; need a path, or one of {_WRITABLE}"
    return uri_problem(uri)


def _flaws(uri: str) -> Iterator[str]:
    if is_empty(uri):
        yield EMPTY
    if "\0" in uri:
        yield "holds a NUL character, which no path can; take it out"
    scheme, separator, rest = uri.partition("://")
    is_path = not separator or uri.startswith("/")
    scheme = "file" if is_path else scheme.lower()
    if scheme not in SCHEMES:
        yield f"cannot be read: no storage is known for {shortened(scheme)}://; need a path, or one of {_READABLE}"
    if scheme not in (*LOCAL_SCHEMES, "memory") and not rest.strip("/"):
        yield "names no bucket or host; write it behind ://"
    if surrogate := (_NO_BYTES if is_path else _SURROGATES).search(uri):
        yield f"holds the character U+{ord(surrogate[0]):04X}, which no name can; take it out"
    if len(uri) > LONGEST_URI and "{" not in uri:
        yield f"has {len(uri):,} characters, of which {LONGEST_URI:,} are the most"


def require_valid_uri(uri: str, name: str = "URI", *, is_target: bool = False) -> None:
    """Raise InputError, which begins with `name`, for a path or URI that cannot be read or, as a target, written to."""
    if flaw := target_uri_problem(uri) if is_target else uri_problem(uri):
        raise InputError(f"{name}: {shortened(repr(uri))} {flaw}")


def normalised(uri: str) -> str:
    """A URI with its scheme in lower case: `S3://bucket` is `s3://bucket`."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.:-]*", scheme):
        return uri
    before, colon, last = scheme.rpartition(":")  # `local-dir:S3` keeps what is before
    return f"{before}{colon}{last.lower()}://{rest}"


def uri_argument(text: str) -> str:
    """A URI as it was written on a command line, normalised. Raises InputError when it holds a secret."""
    if where := secret_in(text):
        raise InputError(
            f"a {text.partition('://')[0]}:// URI holds {where}, which would end up in logs; it is not repeated here. "
            "Leave it out and give credentials by the environment, as the store's own tools take them"
        )
    return normalised(text)


_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})|[\udc80-\udcff]")


def utf8_safe(path: str) -> str:
    r"""A path or key as text that UTF-8 can hold; other paths give other texts.

    A byte of a file name that is no UTF-8 (Python holds it as a lone surrogate) becomes `\xHH`. A backslash that stands
    before `xHH` in the name itself becomes `\x5c`, so that no two names are spelled alike. All others stay as they are.
    """
    return _ESCAPED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", path)
