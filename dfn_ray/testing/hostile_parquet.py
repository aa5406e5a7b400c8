"""Parquet files of hostile or careful writers: with types that run code, and encrypted."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe


class LethalType(pa.ExtensionType):
    """A type like Ray Data's pickled objects.

    Building it, or converting a value of it to Python, runs code.
    """

    built: int = 0
    """Number of times it was built."""

    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "dfn_ray.testing.lethal")

    def __arrow_ext_serialize__(self) -> bytes:
        """Returns no parameters."""
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> LethalType:
        """The type, built by Arrow for a name in a file."""
        del serialized
        LethalType.built += 1
        return cls(storage_type)


@contextmanager
def lethal_type_registered() -> Iterator[None]:
    """Registers the type's name with Arrow, as importing Ray Data registers Ray Data's."""
    LethalType.built = 0
    pa.register_extension_type(LethalType(pa.binary()))
    try:
        yield
    finally:
        pa.unregister_extension_type("dfn_ray.testing.lethal")


def lethal_array(storage: pa.Array) -> pa.Array:
    """The values as values of the type."""
    return pa.ExtensionArray.from_storage(LethalType(storage.type), storage)


class _Keys(pe.KmsClient):
    """Keys that protect nothing: they are stored in the file."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        """The key in base64."""
        del master_key_identifier
        return base64.b64encode(key_bytes)


def encrypted_parquet(
    table: pa.Table, columns: Sequence[str], *, plain_footer: bool = True
) -> bytes:
    """The table as a Parquet file with these columns encrypted by Parquet's modular encryption."""
    factory = pe.CryptoFactory(lambda config: _Keys())
    settings = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": list(columns)}, plaintext_footer=plain_footer
    )
    access = pe.KmsConnectionConfig(custom_kms_conf={"f": "0" * 16, "c": "1" * 16})
    sink = io.BytesIO()
    properties = factory.file_encryption_properties(access, settings)
    with pq.ParquetWriter(sink, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return sink.getvalue()
