"""The journal: what is written is read back, whatever happens to the files in between."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.ledger import journal as journal_module
from gateway.control.ledger.journal import SEGMENT_BYTES, SUFFIX, Journal

MIB = 1024 * 1024


def payloads(count: int, start: int = 0, size: int = 0) -> list[bytes]:
    return [b'{"id":"%d%s"}' % (number, b"x" * size) for number in range(start, start + count)]


def drain(journal: Journal, most: int = 7) -> list[bytes]:
    """Everything that waits, settled."""
    found = []
    while batch := journal.next_batch(most):
        assert len(batch.payloads) <= most
        found += batch.payloads
        journal.settle(batch)
    return found


def opened(folder: Path, most_bytes: int = 64 * MIB) -> Journal:
    journal = Journal(folder, most_bytes)
    journal.open()
    return journal


def abandon(journal: Journal) -> None:
    """What the end of the process does, without a word."""
    os.close(journal._file)
    os.close(journal._instance._lock)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_records_come_back_in_order_and_leave_nothing_behind(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(payloads(20))
    assert journal.waiting == 20
    assert drain(journal) == payloads(20)
    assert journal.waiting == 0
    journal.append(payloads(5, start=20))
    assert drain(journal) == payloads(5, start=20)
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_settled_is_taken_over_by_the_next_process(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.append(payloads(10))
    batch = first.next_batch(4)
    assert batch is not None
    first.settle(batch)
    abandon(first)
    second = opened(tmp_path)
    # From the beginning: the database knows by their ids which it has.
    assert drain(second) == payloads(10)
    assert len(files(tmp_path)) == 1
    second.close()
    assert files(tmp_path) == []


def test_the_journal_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.append(payloads(3))
    second.adopt()
    assert drain(second) == []
    assert drain(first) == payloads(3)
    first.close()
    second.close()


def test_a_close_keeps_what_the_database_lacks(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(payloads(3))
    journal.close()
    again = opened(tmp_path)
    assert drain(again) == payloads(3)
    again.close()


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_tail_costs_the_record_that_was_torn(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    journal = opened(folder)
    journal.append(payloads(10))
    abandon(journal)
    path = files(folder)[0]
    text = path.read_bytes()
    path.write_bytes(text[: min(cut, len(text))])
    whole = text[:cut].count(b"\n")
    again = opened(folder)
    assert drain(again) == payloads(whole)
    torn = 0 < cut < len(text) and not text[:cut].endswith(b"\n")
    assert again.lost.damaged == int(torn)
    again.close()
    assert files(folder) == []


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_costs_at_most_the_records_that_it_touches(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    journal = opened(folder)
    journal.append(payloads(10))
    abandon(journal)
    path = files(folder)[0]
    text = bytearray(path.read_bytes())
    text[position % len(text)] = value
    path.write_bytes(text)
    again = opened(folder)
    found = drain(again)
    assert set(found) <= set(payloads(10))
    assert len(found) >= 8  # a line break that is gone takes the next record with it
    again.close()


def test_full_files_follow_each_other_and_go_once_they_are_shipped(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    written = []
    for round_ in range(12):
        more = payloads(100, start=round_ * 100, size=3000)
        journal.append(more)
        journal.tidy()
        written += more
    assert len(files(tmp_path)) == 12 * 100 * 3020 // SEGMENT_BYTES + 1
    assert drain(journal, most=64) == written
    assert len(files(tmp_path)) == 1
    journal.close()


def test_beyond_the_bound_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    journal = opened(tmp_path, most_bytes=4 * MIB)
    written = []
    for round_ in range(20):
        more = payloads(100, start=round_ * 100, size=6000)
        journal.append(more)
        journal.tidy()
        written += more
        assert journal.on_disk <= 4 * MIB + SEGMENT_BYTES
    found = drain(journal, most=1000)
    assert found == written[-len(found) :]
    assert journal.lost.journal_full == len(written) - len(found) > 0
    journal.close()


def test_a_deleted_file_costs_what_was_in_it_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal = opened(folder)
    journal.append(payloads(3))
    shutil.rmtree(folder)
    assert drain(journal) == []
    assert journal.lost.damaged == 3
    journal.tidy()
    journal.append(payloads(3, start=3))
    assert drain(journal) == payloads(3, start=3)
    journal.close()
    assert files(folder) == []


def test_a_write_that_fails_half_way_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    journal.append(payloads(2))

    def half(file: int, data: bytes) -> None:
        os.write(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as fault:
        fault.setattr(journal_module, "write_all", half)
        with pytest.raises(OSError, match="No space"):
            journal.append(payloads(2, start=2))
    journal.append(payloads(2, start=2))
    abandon(journal)
    again = opened(tmp_path)
    assert drain(again) == payloads(4)
    assert again.lost.damaged == 0
    again.close()
