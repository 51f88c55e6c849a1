"""Records on local disk until a database has them: append-only files, a checksum per record.

    0a1b2c3d {"id":"..."}\\n        CRC-32 of the JSON as eight hexadecimal digits

A file is closed at SEGMENT_BYTES and deleted once the database has all of it. A process that
ends without a word leaves its files; the next one on the same folder takes them over and ships
them again from their beginning, which is harmless as records are inserted once by their id. A
record that was being written as the process ended does not match its checksum and is left out.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.store.instance import Instance
from gateway.store.sqlite import make_private_folder

SEGMENT_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024
SUFFIX = ".journal"


@dataclass(slots=True, eq=False)
class Segment:
    """One file. ``size`` is how much of it is whole; ``shipped`` how much the database has."""

    path: Path
    size: int = 0
    shipped: int = 0
    records: int = 0
    shipped_records: int = 0
    sealed: bool = False

    @property
    def waits(self) -> bool:
        """Whether the database lacks some of it."""
        return self.shipped < self.size


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one file, as JSON. ``damaged`` others did not match their checksum."""

    segment: Segment
    payloads: list[bytes]
    end: int
    damaged: int = 0


@dataclass(slots=True)
class Lost:
    """Records that will never reach the database, by the reason."""

    journal_full: int = 0
    damaged: int = 0


class Journal:
    """The files of this process and those it took over. One thread appends, another one ships.

    Args:
        folder: shared by the gateways on this machine.
        most_bytes: of all files; beyond, the oldest are given up.

    Attributes:
        lost: records that will never reach the database.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.lost = Lost()
        self._most_bytes = most_bytes
        self._instance = Instance(folder)
        self._segments: list[Segment] = []
        self._shipping: Segment | None = None
        self._lock = threading.Lock()
        self._file = -1
        self._number = 0
        self._dirty = False
        self._is_gone = False

    @property
    def on_disk(self) -> int:
        """Size of all files, in bytes."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    @property
    def waiting(self) -> int:
        """Records of this process that the database lacks."""
        with self._lock:
            return sum(segment.records - segment.shipped_records for segment in self._segments)

    def open(self) -> None:
        """Take the folder into use. Raises OSError."""
        self._instance.hold()
        self._begin_segment()
        self.adopt()

    def adopt(self) -> None:
        """Take over what processes left that are gone. Raises OSError."""
        known = {segment.path for segment in self._segments}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            owner = path.name.partition("-")[0]
            if path in known or self._instance.alive(owner):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process has shipped it
                found = Segment(path, size=path.stat().st_size, sealed=True)
                with self._lock:
                    self._segments.insert(0, found)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write records; all or, when it raises OSError, none of them."""
        data = b"".join(b"%08x %b\n" % (zlib.crc32(payload), payload) for payload in payloads)
        segment = self._segments[-1]
        try:
            write_all(self._file, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, segment.size)
            raise
        self._dirty = True
        with self._lock:
            segment.size += len(data)
            segment.records += len(payloads)

    def tidy(self) -> None:
        """Go on in a new file where this one is full or gone, within the bound. Raises OSError."""
        if self._is_gone:
            make_private_folder(self.folder)
            self._begin_segment()
            self._is_gone = False
        elif self._segments[-1].size >= SEGMENT_BYTES:
            self.sync()
            self._begin_segment()
            self._drop_oldest()

    def sync(self) -> None:
        """Have what was written survive the loss of power. Raises OSError."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file)

    def next_batch(self, most: int) -> Batch | None:
        """The oldest records that the database lacks, or None. Raises OSError."""
        while True:
            with self._lock:
                segment = next((found for found in self._segments if found.waits), None)
                self._shipping = segment
            if segment is None:
                return None
            try:
                batch = read_batch(segment, most)
            except FileNotFoundError:
                self._give_up(segment)
                continue
            if batch.payloads:
                return batch
            self.settle(batch)

    def settle(self, batch: Batch) -> None:
        """The database has these."""
        segment = batch.segment
        with self._lock:
            self.lost.damaged += batch.damaged
            segment.shipped = batch.end
            segment.shipped_records += len(batch.payloads)
            # What was taken over has not been counted.
            segment.records = max(segment.records, segment.shipped_records)
        if segment.sealed and not segment.waits:
            self._forget(segment)

    def close(self) -> None:
        """Keep what the database lacks, and no more. Raises OSError."""
        if self._file < 0:
            return
        self.sync()
        os.close(self._file)
        self._file = -1
        for segment in self._segments[:]:
            if not segment.waits:
                self._forget(segment)
        self._instance.release()

    def _begin_segment(self) -> None:
        path = self.folder / f"{self._instance.id}-{self._number:08d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        sync_folder(self.folder)
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._number += 1
        done = []
        with self._lock:
            if self._segments:
                self._segments[-1].sealed = True
                done = [self._segments[-1]] if not self._segments[-1].waits else []
            self._segments.append(Segment(path))
        for segment in done:
            self._forget(segment)

    def _drop_oldest(self) -> None:
        while self.on_disk > self._most_bytes:
            with self._lock:
                # What is on its way to the database stays: whether it arrives is not known yet.
                spare = [found for found in self._segments[:-1] if found is not self._shipping]
                if not spare:
                    return
                self.lost.journal_full += spare[0].records - spare[0].shipped_records
            self._forget(spare[0])

    def _give_up(self, segment: Segment) -> None:
        """Somebody has deleted the file."""
        with self._lock:
            self.lost.damaged += segment.records - segment.shipped_records
            segment.shipped, segment.shipped_records = segment.size, segment.records
            self._is_gone = self._is_gone or segment is self._segments[-1]
        if segment.sealed:
            self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        with contextlib.suppress(OSError):
            segment.path.unlink(missing_ok=True)
        with self._lock, contextlib.suppress(ValueError):
            self._segments.remove(segment)


def sync_folder(folder: Path) -> None:
    """Have the names of its files survive the loss of power, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(file: int, data: bytes) -> None:
    """Write everything. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def read_batch(segment: Segment, most: int) -> Batch:
    """Up to ``most`` records from where the database left off. Raises OSError."""
    with segment.path.open("rb") as file:
        file.seek(segment.shipped)
        text = file.read(min(READ_BYTES, segment.size - segment.shipped))
    end = segment.shipped
    payloads: list[bytes] = []
    damaged = 0
    for line in text.splitlines(keepends=True):
        if len(payloads) == most or not line.endswith(b"\n"):
            break
        end += len(line)
        payload = checked(line)
        if payload is None:
            damaged += 1
        else:
            payloads.append(payload)
    else:
        return Batch(segment, payloads, end, damaged)
    if end == segment.shipped:  # no whole line is left: the last one was cut off
        return Batch(segment, [], segment.size, damaged + 1)
    return Batch(segment, payloads, end, damaged)


def checked(line: bytes) -> bytes | None:
    """The JSON of a line, or None when it is not what was written."""
    digits, payload = line[:8], line[9:-1]
    try:
        intact = int(digits, 16) == zlib.crc32(payload)
    except ValueError:
        return None
    return payload if intact and payload else None
