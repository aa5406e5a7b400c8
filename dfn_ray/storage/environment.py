"""Storage settings that a driver passes on to the workers of its cluster."""

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
"""Address and request options of the store. Never credentials: Ray stores and logs the variables it
passes on. Nor AWS_PROFILE, which names a section of a file that may exist on the driver's machine
only."""


def shared_environment() -> dict[str, str]:
    """The `SHARED` variables set in this process, without URLs that contain credentials."""
    found = {name: os.environ[name] for name in SHARED if name in os.environ}
    return {name: value for name, value in found.items() if secret_in(value) is None}
