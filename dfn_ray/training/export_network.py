"""Exports any network as a folder in transformers' layout."""

from __future__ import annotations

from dfn_ray.config import Network
from dfn_ray.errors import InputError
from dfn_ray.network.transformers_layout.write_network import layout_files
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.run import RUN, abbreviated
from dfn_ray.storage import Store

_RUNS_NETWORK = "network"
"""Folder of a training run with its result."""


def export_network(source: str, out_uri: str) -> list[str]:
    """Writes the network to an empty folder; returns notes for its users, one line each.

    `source` is a training run, a folder with a network, or a value of `model` in a recipe
    (`hf-hub:ORG/REPO`, `local-dir:PATH`). Raises InputError if transformers' classes cannot express
    the network, or the folder is not empty.
    """
    out = Store(out_uri)
    if found := sorted(out.names()):
        raise InputError(f"{out_uri}: contains {abbreviated(found)}; use an empty folder")
    files, notes = layout_files(fetch_network(Network(model=_model(source))))
    for name, content in files.items():
        out.write(name, content)
    return notes


def _model(source: str) -> str:
    if source.startswith(("hf-hub:", "local-dir:")):
        return source
    if RUN not in Store(source).names():
        return f"local-dir:{source}"
    folder = f"{source.rstrip('/')}/{_RUNS_NETWORK}"
    if not Store(folder).names():
        raise InputError(
            f"{source}: is a run without a finished network. Use a finished training run, one of "
            "its networks/samples-* folders, or another network's folder"
        )
    return f"local-dir:{folder}"
