"""Which settings of storage a driver may hand to the workers of its cluster."""

from __future__ import annotations

import os

from dfn_ray.uris import secret_in

SHARED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "FSSPEC_S3_ANON",
    "FSSPEC_S3_REQUESTER_PAYS",
)
"""Where the store is and how it is asked. Never credentials: Ray keeps and logs what it hands on. Nor AWS_PROFILE,
which names a section of a file that only the driver's machine may have."""


def shared_environment() -> dict[str, str]:
    """Those of the `SHARED` variables that are set here, without URLs that hold credentials."""
    found = {name: os.environ[name] for name in SHARED if name in os.environ}
    return {name: value for name, value in found.items() if secret_in(value) is None}
