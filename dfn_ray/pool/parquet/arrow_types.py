"""Arrow types by the kind of their values, whatever their layout."""

from __future__ import annotations

import pyarrow as pa

_TEXT_EXTENSIONS = ("arrow.uuid",)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves: without dictionary, run-end encoding or extension."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_list(kind: pa.DataType) -> bool:
    """True for lists of every layout."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """True for bytes of every layout."""
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_string(kind: pa.DataType) -> bool:
    """True for strings of every layout."""
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def has_binary(kind: pa.DataType) -> bool:
    """True if bytes occur anywhere in the type, except in extensions with a text form (a UUID)."""
    if isinstance(kind, pa.BaseExtensionType) and is_binary(kind.storage_type):
        return kind.extension_name not in _TEXT_EXTENSIONS
    kind = plain_type(kind)
    return is_binary(kind) or any(has_binary(kind.field(i).type) for i in range(kind.num_fields))


def is_image_struct(kind: pa.DataType) -> bool:
    """True for Hugging Face's images: one field of bytes, or the path of an external file."""
    if not pa.types.is_struct(kind):
        return False
    places = kind.get_all_field_indices("bytes")
    if places:
        values = plain_type(kind.field(places[0]).type)
        return len(places) == 1 and (is_binary(values) or pa.types.is_null(values))
    return kind.get_field_index("path") >= 0
