"""A network, trained here or anyone's, as a folder in transformers' layout."""

from __future__ import annotations

from dfn_ray.config import Network
from dfn_ray.errors import InputError
from dfn_ray.network.transformers_layout.write_network import layout_files
from dfn_ray.preparing.fetch_networks import fetch_network
from dfn_ray.run import abbreviated
from dfn_ray.storage import Store

_RUN, _RUNS_NETWORK = "run.json", "network"
"""Of a training run: its record, and the folder of its result."""


def export_network(source: str, out_uri: str) -> list[str]:
    """Write the network to an empty folder; returns what a reader should know, a line each.

    `source` is a training run, a folder with a network, or what `model` of a recipe takes for one (`hf-hub:ORG/REPO`,
    `local-dir:PATH`). Raises InputError where transformers' classes cannot express it, or the folder is not empty.
    """
    out = Store(out_uri)
    if there := sorted(out.names()):
        raise InputError(f"{out_uri}: holds {abbreviated(there)}; use an empty folder")
    files, notes = layout_files(fetch_network(Network(model=_model(source))))
    for name, content in files.items():
        out.write(name, content)
    return notes


def _model(source: str) -> str:
    if source.startswith(("hf-hub:", "local-dir:")):
        return source
    if _RUN not in Store(source).names():
        return f"local-dir:{source}"
    folder = f"{source.rstrip('/')}/{_RUNS_NETWORK}"
    if not Store(folder).names():
        raise InputError(
            f"{source}: is a run without a finished network; name a training run, one of its networks/samples-* "
            "folders, or any network's folder"
        )
    return f"local-dir:{folder}"
