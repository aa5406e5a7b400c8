"""URIs that users write in recipes and on command lines: schemes, checks, one spelling.

URIs from a listing are not checked here; they may contain anything.
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
"""Scheme -> the extra of dfn_ray that installs its client."""
SCHEMES = frozenset((*LOCAL_SCHEMES, *S3_SCHEMES, *HTTP_SCHEMES, *EXTRAS, "memory"))
"""All schemes that can be read. fsspec knows more that no test covers: some are no stores, or read
something other than what the recipe names.

`memory` is a store of this process alone, for tests."""
READ_ONLY_SCHEMES = (*HTTP_SCHEMES, "hf")
"""Web servers are never written to, and on the hub each file of a run would be a commit."""
MAX_URI_CHARS = 8_192
"""Characters. Linux limits paths to 4,096 bytes, S3, Google and Azure limit names to 1,024;
patterns with braces may be longer."""
_READABLE = "file://, s3://, http(s)://, gs://, az://, abfs(s):// and hf://"
_WRITABLE = "file://, s3://, gs://, az:// and abfs(s)://"
EMPTY = "is empty; set it to a path (. is the working directory) or to a URI with its scheme"
_LOCAL_FOLDER = "local-dir:"
_SURROGATES = re.compile("[\ud800-\udfff]")
"""Not valid in UTF-8."""
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that do not stand for a byte of a file name that is not UTF-8."""
_ACCOUNT_SCHEMES = ("abfs", "abfss", "az", "wasb", "wasbs")
"""Azure writes `container@account`: names, not secrets."""
_PARAMETER = re.compile(r"[?&;#]([\w.%-]+)=[^&;#]")
"""`?name=value`; a glob's `?` is not followed by a name and `=`."""
_SECRET_NAMES = frozenset({"auth", "jwt", "key", "pass", "pwd", "sas", "sig"})
_SECRET_PARTS = (
    "accessid", "accesskey", "apikey", "authorization", "credential", "passwd", "password",
    "secret", "signature", "token",
)  # fmt: skip
"""In the names of parameters, without `-`, `_` and `.`: X-Amz-Signature, GoogleAccessId,
AWSAccessKeyId, api_key."""


def secret_in(uri: str) -> str | None:
    """The kind of secret that a URI contains: "a user or password", "the parameter sig"; or None.

    Paths never contain one.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return None
    user, at, host = rest.partition("/")[0].rpartition("@")
    scheme = scheme.rpartition(":")[2].lower()  # of a chain like `simplecache::s3`
    if at and (":" in user or scheme not in _ACCOUNT_SCHEMES):
        return "a user or password"
    _, colon, port = host.partition(":")
    # A secret key may contain a slash, which ends the apparent host.
    if colon and not port.partition("?")[0].isdigit() and not host.startswith("arn:"):
        return "a user or password"
    for name in map(unquote, _PARAMETER.findall(rest)):
        plain = re.sub(r"[-_.]", "", name.lower())
        if plain in _SECRET_NAMES or any(part in plain for part in _SECRET_PARTS):
            return f"the parameter {name}"
    return None


def scheme_of(uri: str) -> str:
    """The scheme of a URI as fsspec parses it.

    An absolute path has none, whatever it contains: `/data/a::b` is not a chain.
    """
    if uri.startswith("/"):
        return "file"
    scheme, *rest = re.split("::|://", uri, maxsplit=1)
    return scheme if rest else "file"


def is_empty(uri: str) -> bool:
    """True for URIs without a path, which clients take for the working directory.

    These are "", `file:` and `file://`.
    """
    scheme, colon, rest = uri.strip().partition(":")
    is_local = scheme.lower() in LOCAL_SCHEMES and bool(colon)
    return not uri.strip() or (is_local and rest in ("", "//"))


def uri_problem(uri: str) -> str | None:
    """The reason why a path, URI or pattern cannot be read, or None.

    Worded as a predicate that follows the URI in a message. `local-dir:` before a network's folder
    is not a scheme.
    """
    return next(_problems(uri.removeprefix(_LOCAL_FOLDER)), None)


def target_uri_problem(uri: str) -> str | None:
    """The same for a path or URI that will be written to."""
    scheme = scheme_of(uri).lower()
    if scheme in READ_ONLY_SCHEMES:
        return f"cannot be written to: {scheme}:// is read-only; use a path or one of {_WRITABLE}"
    return uri_problem(uri)


def _problems(uri: str) -> Iterator[str]:
    if is_empty(uri):
        yield EMPTY
    if "\0" in uri:
        yield "contains a NUL character, which paths cannot contain; remove it"
    scheme, separator, rest = uri.partition("://")
    is_path = not separator or uri.startswith("/")
    scheme = "file" if is_path else scheme.lower()
    if scheme not in SCHEMES:
        yield (
            f"cannot be read: the scheme {shortened(scheme)}:// is not supported; use a path or "
            f"one of {_READABLE}"
        )
    if scheme not in (*LOCAL_SCHEMES, "memory") and not rest.strip("/"):
        yield "names no bucket or host; write it after ://"
    if surrogate := (_NO_BYTES if is_path else _SURROGATES).search(uri):
        yield (
            f"contains the character U+{ord(surrogate[0]):04X}, which names cannot contain; remove "
            "it"
        )
    if len(uri) > MAX_URI_CHARS and "{" not in uri:
        yield f"has {len(uri):,} characters; the limit is {MAX_URI_CHARS:,}"


def require_valid_uri(uri: str, name: str = "URI", *, is_target: bool = False) -> None:
    """Raises InputError, prefixed with `name`, for a URI that cannot be read or written.

    Written to if `is_target`.
    """
    if problem := target_uri_problem(uri) if is_target else uri_problem(uri):
        raise InputError(f"{name}: {shortened(repr(uri))} {problem}")


def normalised(uri: str) -> str:
    """The URI with its scheme in lower case: `S3://bucket` becomes `s3://bucket`."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.:-]*", scheme):
        return uri
    before, colon, last = scheme.rpartition(":")  # `local-dir:S3` keeps what is before
    return f"{before}{colon}{last.lower()}://{rest}"


def uri_argument(text: str) -> str:
    """The URI from a command line, normalised. Raises InputError if it contains a secret."""
    if where := secret_in(text):
        raise InputError(
            f"a {text.partition('://')[0]}:// URI contains {where}, which would end up in logs; it "
            "is not repeated here. Remove it and set the credentials in the environment variables "
            "that the store's own tools read"
        )
    return normalised(text)


_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})|[\udc80-\udcff]")


def utf8_safe(path: str) -> str:
    r"""A path or key as text that UTF-8 can encode; distinct paths yield distinct texts.

    A byte of a file name that is not UTF-8 (a lone surrogate in Python) becomes `\xHH`. A backslash
    before `xHH` in the name itself becomes `\x5c`, so that no two names are spelled alike. All
    other characters are unchanged.
    """
    return _ESCAPED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", path)
