"""A run on storage, opened: for reading by anyone, for writing by the driver that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.errors import DamagedRunError, InputError, MissingFileError, RunTakenOverError
from dfn_ray.run.attempts import Attempt, last_attempt
from dfn_ray.run.identity import listing_digest
from dfn_ray.run.layout import (
    FORMAT_VERSION,
    LISTING,
    READABLE_FORMATS,
    RUN,
    SELECTION,
    SUBSET,
)
from dfn_ray.run.parts import part_names
from dfn_ray.run.sealed_json import (
    RESTORE,
    RESTORE_TRAINING,
    json_bytes,
    names_file,
    parsed_json,
    read_names,
    require_valid,
)
from dfn_ray.run.sealed_parquet import opened_parquet, verified_parquet
from dfn_ray.run.shapes import completed_recipe, shape_of
from dfn_ray.storage import Store


@dataclass(frozen=True)
class Run:
    """A run on storage. Small enough to send to tasks.

    Everything that is written into it goes through here, which asks before each write whether this driver still holds
    the run, and raises RunTakenOverError if not.
    """

    store: Store
    description: Mapping[str, Any]
    """`run.json`: format, kind, recipe, fingerprint, pool."""
    last: Attempt | None = field(default=None, compare=False)
    """The last attempt when this was opened; None for runs of format 1."""
    held: bool = field(default=False, compare=False)
    """True if the last attempt is this driver's own."""

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.store.uri

    @property
    def kind(self) -> str:
        """What made it: `filter`, `materialized`, `listed`, `train`."""
        return self.description["kind"]

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes scores."""
        return self.description["fingerprint_digest"]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe of the last attempt: it gives the same scores as all others. Raises DamagedRunError."""
        file, stored = RUN, self.description["recipe"]
        if self.last and "recipe" in self.last.record:
            file, stored = self.last.file, self.last.record["recipe"]
        recipe, wrong = completed_recipe(self.kind, stored)
        require_valid([f"recipe.{name}" for name in wrong], self.store.uri_of(file))
        return recipe

    @property
    def attempt(self) -> Attempt:
        """The attempt by which this driver holds the run. Raises RunTakenOverError where it does not."""
        if self.last is None or not self.held:
            raise RunTakenOverError(
                f"{self.uri}: opened for reading; nothing may be written into it"
            )
        return self.last

    def check_attempt(self) -> None:
        """Raise RunTakenOverError when another driver has taken the run over since this attempt began."""
        self.attempt.check(self.store)

    def notes(self) -> list[str]:
        """What is to be said of this attempt: packages of other versions, a store without conditions."""
        record, found = self.attempt.record, []
        if changed := record.get("accepted_versions"):
            found.append(
                f"going on with other versions ({'; '.join(changed)}), as the recipe accepts"
            )
        if not self.attempt.is_exclusive:
            found.append(
                f"{self.uri}: the store takes no notice of conditional writes; start one driver at a time for this run"
            )
        return found

    # Reading

    def exists(self, name: str) -> bool:
        """True if the file `name` is there."""
        return self.store.exists(name)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON file `name` of the run, None when it is not there. Raises DamagedRunError."""
        return self.read_json_bytes(name)[0]

    def read_json_bytes(self, name: str) -> tuple[dict[str, Any], bytes] | tuple[None, None]:
        """The same with the bytes of the file, by which `replace_json` knows this version of it."""
        try:
            data = self.store.read(name)
        except MissingFileError:
            return None, None
        where, shape = self.store.uri_of(name), shape_of(name, self.kind)
        return parsed_json(
            data, where, require_digest=self._is_sealed, shape=shape, advice=self._advice
        ), data

    @property
    def _advice(self) -> str:
        """What to do about a damaged file of it."""
        return RESTORE_TRAINING if self.kind == "train" else RESTORE

    @property
    def _is_sealed(self) -> bool:
        """True if its files have digests of themselves: since format 2."""
        return self.description["format"] != 1

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file that the run must have, for reading here and there.

        Raises DamagedRunError when it is absent, and for what pyarrow raises over its content.
        """
        where = self.store.uri_of(name)
        try:
            with self.store.open(name) as file:
                yield file
        except MissingFileError:
            raise DamagedRunError(f"{where}: is absent; {self._advice}") from None
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedRunError(f"{where}: is damaged: {error}; {self._advice}") from None

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the run, or some of its columns. Raises DamagedRunError.

        Only a file without rows may lack some of these.
        """
        with self.open(name) as file:
            if columns is None:
                return verified_parquet(file, _last(name), is_sealed=self._is_sealed).read()
            parquet = opened_parquet(file, _last(name), is_sealed=self._is_sealed, pre_buffer=True)
            absent = set(columns) - set(parquet.schema_arrow.names)
            table = parquet.read(columns=columns)
        if absent and len(table):
            raise DamagedRunError(
                f"{self.store.uri_of(name)}: is damaged: it lacks {', '.join(sorted(absent))}; {self._advice}"
            )
        return table

    @contextmanager
    def open_parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """A Parquet file that the run must have, its footer checked. Raises DamagedRunError, as `open` does."""
        with self.open(name) as file:
            yield opened_parquet(file, _last(name), is_sealed=self._is_sealed)

    def columns_of(self, name: str) -> list[str]:
        """The columns of a Parquet file, by its footer. Raises DamagedRunError."""
        with self.open_parquet(name) as parquet:
            return parquet.schema_arrow.names

    def rows_of(self, name: str) -> int:
        """The rows of a Parquet file, by its footer. Raises DamagedRunError."""
        with self.open_parquet(name) as parquet:
            return parquet.metadata.num_rows

    @property
    def pool_digest(self) -> str:
        """The digest that runs of one pool share; format 1 stored one that covers sizes as well."""
        if self.description["format"] == FORMAT_VERSION:
            return self.description["pool"]["digest"]
        return listing_digest(self.listing())

    def verify_file(self, name: str) -> None:
        """Raise DamagedRunError unless every bit of a Parquet file of the run is as it was written."""
        with self.open(name) as file:
            verified_parquet(file, _last(name), is_sealed=self._is_sealed)

    @property
    def listing_name(self) -> str:
        """The file with the pool listing that the last attempt reads the pool by."""
        record = self.last.record if self.last else {}
        return record.get("listing", LISTING)

    def listing(self) -> pa.Table:
        """The pool listing: uri, name, size_bytes, fault."""
        table = self.read_table(self.listing_name)
        if not {"uri", "name", "size_bytes", "fault"} <= set(table.column_names):
            raise DamagedRunError(
                f"{self.store.uri_of(self.listing_name)}: is damaged: not a pool listing; {self._advice}"
            )
        return table

    def part_names(self) -> list[str]:
        """Names of the parts that count: all that its selection is over, else all that are committed."""
        selection = self.read_json(SELECTION)
        if selection and "parts" in selection:
            return read_names(self.store, selection["parts"])
        return part_names(self.store)

    def subset_files(self) -> list[str]:
        """Names of the files of the subset: those that its selection names, else all that are there."""
        selection = self.read_json(SELECTION)
        if selection and "files" in selection:
            return read_names(self.store, selection["files"])
        return [file.name for file in self.store.list(SUBSET, suffix=".parquet")]

    # Writing

    def write(self, name: str, data: bytes) -> None:
        """Make `data` the content of the file `name`.

        For files that are equal whoever writes them, or of a name that no other attempt writes.
        """
        self.check_attempt()
        self.store.write(name, data)

    def write_stream(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """The same for content that is not held as a whole."""
        self.check_attempt()
        self.store.write_stream(name, pieces)

    def delete(self, name: str) -> None:
        """Remove the file `name`; for files that no reader needs whoever removes them, and when."""
        self.check_attempt()
        self.store.delete(name)

    def delete_folder(self, name: str) -> None:
        """Remove the folder `name` and all below it; likewise."""
        self.check_attempt()
        self.store.delete_folder(name)

    def remove_leftovers(self, folder: str) -> None:
        """Remove what killed writers of this attempt and earlier ones left half-written in a folder."""
        self.check_attempt()
        self.store.remove_leftovers(folder)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """`write` for a JSON file."""
        self.write(name, json_bytes(value))

    def write_names(self, kind: str, names: Sequence[str]) -> str:
        """Write a list of names under a name that is its digest, `KIND-DIGEST.txt`, and return that name."""
        called, data = names_file(kind, names)
        self.write(called, data)
        return called

    def create_json(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Write the JSON file `name` if there is none; returns what the file holds then."""
        self.check_attempt()
        self.store.create(name, json_bytes(value))
        found = self.read_json(name)
        assert found is not None
        return found

    def replace_json(self, name: str, value: Mapping[str, Any], before: bytes | None) -> bytes:
        """Replace the version `before` of the JSON file `name`, None: that there is none; returns the new version.

        Raises RunTakenOverError when it is another version by now.
        """
        data = json_bytes(value)
        self.attempt.replace(self.store, name, data, before)
        return data


def open_run(run_uri: str) -> Run:
    """The run at a URI, for reading. Raises InputError when there is none, DamagedRunError when it cannot be read."""
    store = Store(run_uri)
    try:
        data = store.read(RUN)
    except MissingFileError:
        if store.exists(SELECTION) or store.exists(LISTING):
            raise DamagedRunError(f"{store.uri_of(RUN)}: is absent; {RESTORE}") from None
        raise InputError(f"{run_uri}: holds no run (no run.json); check run_uri") from None
    value = parsed_json(data, store.uri_of(RUN), require_digest=False)
    if type(value.get("format")) is not int:
        raise DamagedRunError(f"{store.uri_of(RUN)}: is damaged: it has no format; {RESTORE}")
    if value["format"] not in READABLE_FORMATS:
        raise InputError(
            f"{run_uri}: run format {value.get('format')}, this version reads "
            f"{' and '.join(map(str, READABLE_FORMATS))}; use the version named in run.json"
        )
    require_digest = value["format"] == FORMAT_VERSION
    value = parsed_json(data, store.uri_of(RUN), require_digest=require_digest, shape=shape_of(RUN))
    return Run(store, value, last_attempt(store))


def _last(name: str) -> str:
    return name.rpartition("/")[2]
