"""The environment that affects the last bits of a score: device, threads and library versions."""

from __future__ import annotations

import hashlib
import json
import platform

import torch

from dfn_ray.versions import package_versions

_PACKAGES = ("torch", "open_clip_torch", "pillow", "simplejpeg", "numpy")


def environment(device: str, threads: int | None) -> dict[str, str]:
    """Returns the environment of scores that this process computes on a device, as plain values."""
    if device.startswith("cuda"):
        kind = torch.cuda.get_device_name(device)
    else:
        # torch picks kernels by the processor, and they round differently.
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    number = "" if device.startswith("cuda") else str(threads or torch.get_num_threads())
    return {"device": kind, "threads": number, **package_versions(_PACKAGES)}


def environment_digest(device: str, threads: int | None) -> str:
    """Returns a digest of `environment`: with equal digests, scores are equal to the last bit."""
    text = json.dumps(environment(device, threads), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
