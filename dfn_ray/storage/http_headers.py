"""Values from the headers of HTTP responses.

Unusable headers count as absent; nothing here raises.
"""

from __future__ import annotations

import re

from aiohttp import ClientResponse

from dfn_ray.storage.store import plain_etag
from dfn_ray.uris import utf8_safe

_NUMBER = re.compile(r"[0-9]{1,18}")
r"""Numbers of up to 64 bits. `\d` and `str.isdigit` accept digits, or numbers of digits, that `int`
rejects."""
_LABELS = frozenset(
    {
        "7bit", "8bit", "ascii", "aws-chunked", "binary", "identity", "iso-8859-1", "none",
        "us-ascii", "utf-8", "utf8",
    }
)  # fmt: skip
"""Content encodings that servers and uploads name although they encode nothing. S3's clients send
`aws-chunked` with an upload; some stores keep the name, without the chunks."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


def byte_range(answer: ClientResponse) -> tuple[int, int, int] | None:
    """First and last byte of a response and the file size; None if unknown or encoded."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if answer.status != 206 or match is None or encoding(answer):
        return None
    first, last, size = map(int, match.groups())
    return first, last, size


def length(answer: ClientResponse) -> int | None:
    """Announced size of the body as sent, in bytes; None if not announced."""
    return _number(answer.headers.get("Content-Length", ""))


def is_end_marked(answer: ClientResponse) -> bool:
    """True if a truncated body would be noticed: its length is announced, or its last chunk marked.

    Any other body ends with its connection (RFC 9112, 6.3).
    """
    codings = ",".join(answer.headers.getall("Transfer-Encoding", []))
    return length(answer) is not None or codings.rpartition(",")[2].strip().lower() == "chunked"


def encoding(answer: ClientResponse) -> str:
    """The body's encoding in lower case, without labels that encode nothing; "" without one."""
    names = utf8_safe(",".join(answer.headers.getall("Content-Encoding", []))).lower().split(",")
    return ", ".join(name for text in names if (name := text.strip()) and name not in _LABELS)


def version(answer: ClientResponse) -> str | None:
    """The ETag, or None without one.

    The suffix that servers add for a compressed response is removed. It is valid UTF-8, as it is
    compared and stored in listings. The date of the last change is not used: mirrors of a file have
    different ones.
    """
    etag = answer.headers.get("ETag")
    if not etag:
        return None
    return re.sub(r"[-;]{1,2}(gzip|gz|deflate|df)$", "", plain_etag(utf8_safe(etag)))


def modified(answer: ClientResponse) -> str | None:
    """The date of the last change, unparsed, as valid UTF-8; None without one."""
    return utf8_safe(answer.headers.get("Last-Modified", "")) or None


def retry_after_s(answer: ClientResponse) -> float | None:
    """Seconds of the Retry-After header; None if it is absent or a date."""
    seconds = _number(answer.headers.get("Retry-After", ""))
    return None if seconds is None else float(seconds)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if _NUMBER.fullmatch(text) else None
