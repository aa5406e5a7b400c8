"""A run on storage, opened for reading, or for writing by the driver that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.errors import DamagedRunError, InputError, MissingFileError
from dfn_ray.run.attempts import Attempt, last_attempt
from dfn_ray.run.identity import listing_digest
from dfn_ray.run.kinds import RunKind
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
from dfn_ray.run.sealed_parquet import (
    TAIL_BYTES,
    WHOLE_BYTES,
    opened_parquet,
    verified_parquet,
)
from dfn_ray.run.shapes import completed_recipe, shape_of
from dfn_ray.storage import Store


@dataclass(frozen=True)
class Run:
    """A run on storage. Small enough to send to tasks.

    All writes go through this class. Before each write it checks that this driver still holds the
    run, and raises RunTakenOverError if not.
    """

    store: Store
    description: Mapping[str, Any]
    """`run.json`: format, kind, recipe, fingerprint, pool."""
    last: Attempt | None = field(default=None, compare=False)
    """The last attempt when the run was opened; None for runs of format 1."""
    held: bool = field(default=False, compare=False)
    """True if the last attempt is this driver's."""

    @property
    def uri(self) -> str:
        """URI of the run's folder."""
        return self.store.uri

    @property
    def kind(self) -> str:
        """Kind of run: `filter`, `materialized`, `listed`, `train`."""
        return self.description["kind"]

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes scores."""
        return self.description["fingerprint_digest"]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe of the last attempt; all attempts yield the same scores.

        Raises DamagedRunError.
        """
        file, stored = RUN, self.description["recipe"]
        if self.last and "recipe" in self.last.record:
            file, stored = self.last.file, self.last.record["recipe"]
        recipe, wrong = completed_recipe(self.kind, stored)
        require_valid([f"recipe.{name}" for name in wrong], self.store.uri_of(file))
        return recipe

    @property
    def attempt(self) -> Attempt:
        """The attempt by which this driver holds the run. Raises InputError without one."""
        if self.last is None or not self.held:
            raise InputError(f"{self.uri}: is opened for reading; nothing may be written into it")
        return self.last

    def check_attempt(self) -> None:
        """Raises RunTakenOverError if another driver has taken the run over."""
        self.attempt.check(self.store)

    def notes(self) -> list[str]:
        """Notes about this attempt: other package versions, a store without conditional writes."""
        record, found = self.attempt.record, []
        if changed := record.get("accepted_versions"):
            found.append(
                f"resuming with other versions ({'; '.join(changed)}), as the recipe accepts"
            )
        if not self.attempt.is_exclusive:
            found.append(
                f"{self.uri}: the store ignores conditional writes, so two drivers could write to "
                "this run at once; start only one driver at a time"
            )
        return found

    # Reading

    def exists(self, name: str) -> bool:
        """True if the file `name` exists."""
        return self.store.exists(name)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON file `name` of the run; None if it does not exist. Raises DamagedRunError."""
        return self.read_json_bytes(name)[0]

    def read_json_bytes(self, name: str) -> tuple[dict[str, Any], bytes] | tuple[None, None]:
        """`read_json` with the bytes of the file, the version that `replace_json` expects."""
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
        """Advice in messages about a damaged file."""
        return RESTORE_TRAINING if self.kind == RunKind.TRAIN else RESTORE

    @property
    def _is_sealed(self) -> bool:
        """True if its files contain digests of themselves: since format 2."""
        return self.description["format"] != 1

    @contextmanager
    def open(
        self, name: str, *, head_bytes: int = 0, tail_bytes: int = TAIL_BYTES
    ) -> Iterator[IO[bytes]]:
        """A required file of the run, opened for random reads; see `Store.open`.

        Raises DamagedRunError when it is absent, and instead of pyarrow's errors about its content.
        """
        where = self.store.uri_of(name)
        try:
            with self.store.open(name, head_bytes=head_bytes, tail_bytes=tail_bytes) as file:
                yield file
        except MissingFileError:
            raise DamagedRunError(f"{where}: is missing; {self._advice}") from None
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedRunError(f"{where}: is damaged: {error}; {self._advice}") from None

    def read_table(
        self,
        name: str,
        columns: list[str] | None = None,
        *,
        head_bytes: int = 0,
        tail_bytes: int = TAIL_BYTES,
    ) -> pa.Table:
        """A Parquet file of the run, or some of its columns.

        `head_bytes` and `tail_bytes`: see `Store.open`. Raises DamagedRunError, also if a file with
        rows lacks one of the columns.
        """
        if columns is None:
            head_bytes = WHOLE_BYTES
        with self.open(name, head_bytes=head_bytes, tail_bytes=tail_bytes) as file:
            if columns is None:
                return verified_parquet(file, _last(name), is_sealed=self._is_sealed).read()
            parquet = opened_parquet(file, _last(name), is_sealed=self._is_sealed, pre_buffer=True)
            absent = set(columns) - set(parquet.schema_arrow.names)
            # Passes read many files in parallel: more threads per file only cost time.
            table = parquet.read(columns=columns, use_threads=False)
        if absent and len(table):
            raise DamagedRunError(
                f"{self.store.uri_of(name)}: is damaged: it lacks {', '.join(sorted(absent))}; "
                f"{self._advice}"
            )
        return table

    @contextmanager
    def open_parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """A required Parquet file, opened, with its footer checked. Raises DamagedRunError."""
        with self.open(name) as file:
            yield opened_parquet(file, _last(name), is_sealed=self._is_sealed)

    def columns_of(self, name: str) -> list[str]:
        """The columns of a Parquet file, from its footer. Raises DamagedRunError."""
        with self.open_parquet(name) as parquet:
            return parquet.schema_arrow.names

    def rows_of(self, name: str) -> int:
        """The number of rows of a Parquet file, from its footer. Raises DamagedRunError."""
        with self.open_parquet(name) as parquet:
            return parquet.metadata.num_rows

    @property
    def pool_digest(self) -> str:
        """The digest that runs of one pool share; the one stored by format 1 also covers sizes."""
        if self.description["format"] == FORMAT_VERSION:
            return self.description["pool"]["digest"]
        return listing_digest(self.listing())

    def verify_file(self, name: str) -> None:
        """Raises DamagedRunError unless a Parquet file matches its digest in every bit."""
        with self.open(name) as file:
            verified_parquet(file, _last(name), is_sealed=self._is_sealed)

    @property
    def listing_name(self) -> str:
        """The file with the pool listing that the last attempt uses."""
        record = self.last.record if self.last else {}
        return record.get("listing", LISTING)

    def listing(self) -> pa.Table:
        """The pool listing: uri, name, size_bytes, fault."""
        table = self.read_table(self.listing_name)
        if not {"uri", "name", "size_bytes", "fault"} <= set(table.column_names):
            raise DamagedRunError(
                f"{self.store.uri_of(self.listing_name)}: is damaged: not a pool listing; "
                f"{self._advice}"
            )
        return table

    def part_names(self) -> list[str]:
        """Names of the valid parts: those of the selection, or all committed without one."""
        selection = self.read_json(SELECTION)
        if selection and "parts" in selection:
            return read_names(self.store, selection["parts"])
        return part_names(self.store)

    def subset_files(self) -> list[str]:
        """Names of the subset files: those of the selection, or all existing ones without one."""
        selection = self.read_json(SELECTION)
        if selection and "files" in selection:
            return read_names(self.store, selection["files"])
        return [file.name for file in self.store.list(SUBSET, suffix=".parquet")]

    # Writing

    def write(self, name: str, data: bytes) -> None:
        """Writes `data` to the file `name`.

        For files whose content is the same for every driver, or whose name is unique to the
        attempt.
        """
        self.check_attempt()
        self.store.write(name, data)

    def write_stream(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """`write` for content that is produced in pieces."""
        self.check_attempt()
        self.store.write_stream(name, pieces)

    def delete(self, name: str) -> None:
        """Removes the file `name`; for files that no reader needs, whenever they are removed."""
        self.check_attempt()
        self.store.delete(name)

    def delete_folder(self, name: str) -> None:
        """Removes the folder `name` with its content, see `delete`."""
        self.check_attempt()
        self.store.delete_folder(name)

    def remove_leftovers(self, folder: str) -> None:
        """Removes partial files in a folder, left by killed writers of this or earlier attempts."""
        self.check_attempt()
        self.store.remove_leftovers(folder)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """`write` for a JSON file."""
        self.write(name, json_bytes(value))

    def write_names(self, kind: str, names: Sequence[str]) -> str:
        """Writes a list of names to the file `KIND-DIGEST.txt`; returns the name of the file."""
        file, data = names_file(kind, names)
        self.write(file, data)
        return file

    def create(self, name: str, data: bytes) -> None:
        """Writes `data` to the file `name` unless it exists: the first writer's content stays."""
        self.check_attempt()
        self.store.create(name, data)

    def create_json(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the JSON file `name` unless it exists; returns the content of the file."""
        self.create(name, json_bytes(value))
        found = self.read_json(name)
        assert found is not None
        return found

    def replace_json(self, name: str, value: Mapping[str, Any], before: bytes | None) -> bytes:
        """Replaces the JSON file `name` if its version is `before`; returns the new version.

        `before` None: the file must not exist. Raises RunTakenOverError for any other version.
        """
        data = json_bytes(value)
        self.attempt.replace(self.store, name, data, before)
        return data


def open_run(run_uri: str) -> Run:
    """The run at a URI, opened for reading.

    Raises InputError when there is none, DamagedRunError when it is unreadable.
    """
    store = Store(run_uri)
    try:
        data = store.read(RUN)
    except MissingFileError:
        if store.exists(SELECTION) or store.exists(LISTING):
            raise DamagedRunError(f"{store.uri_of(RUN)}: is missing; {RESTORE}") from None
        raise InputError(f"{run_uri}: contains no run (no run.json); check run_uri") from None
    value = parsed_json(data, store.uri_of(RUN), require_digest=False)
    if type(value.get("format")) is not int:
        raise DamagedRunError(f"{store.uri_of(RUN)}: is damaged: it has no format; {RESTORE}")
    if value["format"] not in READABLE_FORMATS:
        raise InputError(
            f"{run_uri}: run format {value.get('format')}, this version reads "
            f"{' and '.join(map(str, READABLE_FORMATS))}; "
            "use the version of dfn_ray that wrote it, named in its attempts/"
        )
    require_digest = value["format"] == FORMAT_VERSION
    value = parsed_json(data, store.uri_of(RUN), require_digest=require_digest, shape=shape_of(RUN))
    return Run(store, value, last_attempt(store))


def _last(name: str) -> str:
    return name.rpartition("/")[2]
