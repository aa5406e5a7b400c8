"""What the headers of a web server's answer say. None of them can raise: one that is unusable counts as absent."""

from __future__ import annotations

import re

from aiohttp import ClientResponse

from dfn_ray.storage.store import plain_etag
from dfn_ray.uris import utf8_safe

_NUMBER = re.compile(r"[0-9]{1,18}")
"""What fits into 64 bits. Not `\\d` and `str.isdigit`, which take digits that `int` refuses, or refuses to be so many."""
_LABELS = frozenset(
    {
        "7bit", "8bit", "ascii", "aws-chunked", "binary", "identity", "iso-8859-1", "none", "us-ascii", "utf-8", "utf8",
    }
)  # fmt: skip
"""What servers and uploads name as encodings and encodes nothing. S3's clients send `aws-chunked` with an upload; some
stores keep the name, without the chunks."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


def byte_range(answer: ClientResponse) -> tuple[int, int, int] | None:
    """First and last byte of an answer and the size of the file, None unless all are known and nothing is encoded."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if answer.status != 206 or match is None or encoding(answer):
        return None
    first, last, size = map(int, match.groups())
    return first, last, size


def length(answer: ClientResponse) -> int | None:
    """Bytes of the body as it is sent, None when they are not announced."""
    return _number(answer.headers.get("Content-Length", ""))


def is_end_marked(answer: ClientResponse) -> bool:
    """True for a body that cannot end early unnoticed: its length is announced, or its last chunk says that it is the last.

    Any other ends where its connection ends (RFC 9112, 6.3).
    """
    codings = ",".join(answer.headers.getall("Transfer-Encoding", []))
    return length(answer) is not None or codings.rpartition(",")[2].strip().lower() == "chunked"


def encoding(answer: ClientResponse) -> str:
    """How the body is encoded, in lower case; "" when it is not, whatever labels say that encode nothing."""
    names = utf8_safe(",".join(answer.headers.getall("Content-Encoding", []))).lower().split(",")
    return ", ".join(name for text in names if (name := text.strip()) and name not in _LABELS)


def version(answer: ClientResponse) -> str | None:
    """The ETag, without what servers add to that of a compressed answer; None where there is none.

    In characters that UTF-8 can hold: it is compared, and stored in listings. Not the date of the last change: mirrors
    of one file have different ones.
    """
    etag = answer.headers.get("ETag")
    if not etag:
        return None
    return re.sub(r"[-;]{1,2}(gzip|gz|deflate|df)$", "", plain_etag(utf8_safe(etag)))


def modified(answer: ClientResponse) -> str | None:
    """The date of the last change as it is, in characters that UTF-8 can hold; None where there is none."""
    return utf8_safe(answer.headers.get("Last-Modified", "")) or None


def retry_after_s(answer: ClientResponse) -> float | None:
    """Seconds that the server asks to wait, None when it does not say or names a date."""
    seconds = _number(answer.headers.get("Retry-After", ""))
    return None if seconds is None else float(seconds)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if _NUMBER.fullmatch(text) else None
