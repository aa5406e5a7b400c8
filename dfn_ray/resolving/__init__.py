"""The things that a recipe names: its networks, class prompts and the settings that count.

    fetch_networks.py         fetches the networks of a recipe, once, on the driver
    prompts.py                class names and prompt templates
    embedding_fingerprint.py  the settings that change embeddings, as parts of a fingerprint

The package itself imports nothing.
"""
