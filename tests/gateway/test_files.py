"""Files over HTTP, as the OpenAI SDK and careless clients use them."""

import io
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_process import NewServer, ServerProcess

KEY_A = "a" * 32
KEY_B = "b" * 32
MIB = 1024 * 1024
LIMIT = 4 * MIB
OPEN_CLIENTS: list[openai.OpenAI] = []


@pytest.fixture
def files_server(shared_server: NewServer) -> ServerProcess:
    return shared_server(
        API_KEYS=f"{KEY_A},{KEY_B}",
        FILES_MAX_BYTES=str(LIMIT),
        FILES_MAX_TOTAL_BYTES=str(3 * LIMIT),
        BODY_TIMEOUT_S="2",
    )


def sdk(server: ServerProcess, key: str = KEY_A) -> openai.OpenAI:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
    OPEN_CLIENTS.append(client)
    return client


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while OPEN_CLIENTS:
        OPEN_CLIENTS.pop().close()


def content_folder(server: ServerProcess) -> Path:
    return server.folder / "data" / "files"


@pytest.fixture
def client(files_server: ServerProcess) -> openai.OpenAI:
    clients = [sdk(files_server, key) for key in (KEY_B, KEY_A)]
    for client in clients:
        for stored in client.files.list():
            client.files.delete(stored.id)
    return clients[1]


def test_a_file_lives_and_dies(client: openai.OpenAI, files_server: ServerProcess) -> None:
    data = random.Random(1).randbytes(3 * MIB + 17)
    stored = client.files.create(file=("größe 1.bin", data), purpose="user_data")
    assert (stored.bytes, stored.purpose, stored.object) == (len(data), "user_data", "file")
    assert stored.filename == "größe 1.bin"
    assert stored.expires_at is None
    assert abs(stored.created_at - time.time()) < 60
    assert client.files.retrieve(stored.id) == stored
    reply = client.files.content(stored.id)
    assert reply.read() == data
    assert reply.response.headers["content-length"] == str(len(data))
    assert reply.response.headers["content-type"] == "application/octet-stream"
    assert "attachment" in reply.response.headers["content-disposition"]
    (on_disk,) = content_folder(files_server).iterdir()
    assert on_disk.stat().st_mode & 0o077 == 0
    gone = client.files.delete(stored.id)
    assert (gone.id, gone.deleted) == (stored.id, True)
    assert not list(content_folder(files_server).iterdir())
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(stored.id)
        assert caught.value.param == "id"


def test_an_empty_file_is_a_file(client: openai.OpenAI) -> None:
    stored = client.files.create(file=("empty", b""), purpose="batch")
    assert stored.bytes == 0
    assert client.files.content(stored.id).read() == b""


def test_lists_are_paged_in_both_orders(client: openai.OpenAI) -> None:
    made = [
        client.files.create(file=(f"{n}.txt", b"x"), purpose="batch" if n % 2 else "user_data").id
        for n in range(7)
    ]
    assert [f.id for f in client.files.list(order="asc")] == made
    assert [f.id for f in client.files.list(limit=2)] == made[::-1]
    assert [f.id for f in client.files.list(limit=3, order="asc", purpose="batch")] == made[1::2]
    page = client.files.list(limit=3, after=made[5])
    assert [f.id for f in page.data] == made[4:1:-1]
    assert page.has_more is True
    assert client.files.list(limit=7).has_more is False


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=file-unknown", "after"),
    ],
)
def test_bad_queries_are_named(files_server: ServerProcess, query: str, field: str) -> None:
    reply = httpx.get(f"{files_server.url}/v1/files?{query}", headers={"x-api-key": KEY_A})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == field


def test_files_belong_to_their_key(client: openai.OpenAI, files_server: ServerProcess) -> None:
    stored = client.files.create(file=("a.txt", b"secret"), purpose="user_data")
    other = sdk(files_server, KEY_B)
    assert stored.id not in [f.id for f in other.files.list()]
    for ask in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(stored.id)
    with pytest.raises(openai.BadRequestError):
        other.files.list(after=stored.id)
    assert client.files.content(stored.id).read() == b"secret"
    assert httpx.get(f"{files_server.url}/v1/files/{stored.id}/content").status_code == 401


def test_files_expire(client: openai.OpenAI) -> None:
    def make(**fields: Any) -> int | None:
        return client.files.create(file=("a", b"x"), **fields).expires_at

    now = time.time()
    for_a_month = make(purpose="batch")
    for_an_hour = make(purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600})
    assert for_a_month is not None
    assert abs(for_a_month - now - 30 * 86_400) < 60
    assert for_an_hour is not None
    assert abs(for_an_hour - now - 3600) < 60
    for seconds in (3599, 2_592_001):
        with pytest.raises(openai.BadRequestError) as caught:
            make(purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds})
        assert caught.value.param == "expires_after.seconds"


def test_too_large_a_file_is_refused(client: openai.OpenAI, files_server: ServerProcess) -> None:
    assert client.files.create(file=("a", b"x" * LIMIT), purpose="user_data").bytes == LIMIT
    for size in (LIMIT + 1, 40 * MIB):
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=("a", b"x" * size), purpose="user_data")
        assert caught.value.status_code == 413
        assert caught.value.code == "request_too_large"
    assert len(list(content_folder(files_server).iterdir())) == 1


def test_the_sum_of_a_keys_files_is_bounded(
    client: openai.OpenAI, files_server: ServerProcess
) -> None:
    made = [client.files.create(file=("a", b"x" * LIMIT), purpose="user_data") for _ in range(3)]
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a", b"x"), purpose="user_data")
    assert caught.value.code == "storage_limit_exceeded"
    sdk(files_server, KEY_B).files.create(file=("b", b"x"), purpose="user_data")
    client.files.delete(made[0].id)
    assert client.files.create(file=("a", b"x"), purpose="user_data").bytes == 1


def test_parallel_uploads_share_the_bound(
    client: openai.OpenAI, files_server: ServerProcess
) -> None:
    outcomes: list[str | None] = []

    def upload() -> None:
        try:
            sdk(files_server).files.create(file=("a", b"x" * LIMIT), purpose="user_data")
            outcomes.append("stored")
        except openai.BadRequestError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=upload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Uploads that are refused in the end may have kept others out, but hold nothing then.
    assert outcomes.count("stored") <= 3
    assert set(outcomes) <= {"stored", "storage_limit_exceeded"}
    while outcomes.count("stored") < 3:
        upload()
        assert outcomes[-1] == "stored"
    assert sum(f.bytes for f in client.files.list()) == 3 * LIMIT


FORM = "multipart/form-data; boundary=xyz"


def part(name: str, value: str, extra: str = "") -> str:
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{value}\r\n'


FILE_PART = part("file", "hello", '; filename="../../etc/pass\x00wd"')
END = "--xyz--\r\n"


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        (part("purpose", "batch") + END, 400, "file"),
        (FILE_PART + END, 400, "purpose"),
        (FILE_PART + part("purpose", "fun") + END, 400, "purpose"),
        (FILE_PART + part("purpose", "batch") * 2 + END, 400, "purpose"),
        (FILE_PART * 2 + part("purpose", "batch") + END, 400, "file"),
        (FILE_PART + part("purpose", "b" * 2000) + END, 400, "purpose"),
        (FILE_PART + "".join(part(f"f{n}", "x") for n in range(40)) + END, 400, None),
        (FILE_PART + part("purpose", "batch"), 400, None),
        ("no form at all", 400, None),
        ("", 400, None),
        (
            FILE_PART + part("purpose", "batch") + part("expires_after[seconds]", "3600") + END,
            400,
            "expires_after.anchor",
        ),
    ],
)
def test_bad_forms_are_refused(
    client: openai.OpenAI, files_server: ServerProcess, body: str, status: int, where: str | None
) -> None:
    headers = {"x-api-key": KEY_A, "content-type": FORM}
    reply = httpx.post(f"{files_server.url}/v1/files", content=body.encode(), headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, where), reply.text
    assert not list(content_folder(files_server).iterdir())


def test_names_of_files_lead_nowhere(client: openai.OpenAI, files_server: ServerProcess) -> None:
    headers = {"x-api-key": KEY_A, "content-type": FORM}
    body = FILE_PART + part("purpose", "batch") + END
    reply = httpx.post(f"{files_server.url}/v1/files", content=body.encode(), headers=headers)
    assert reply.json()["filename"] == "passwd"
    assert client.files.content(reply.json()["id"]).read() == b"hello"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain", None])
def test_other_bodies_are_refused(files_server: ServerProcess, kind: str | None) -> None:
    headers = {"x-api-key": KEY_A} | ({"content-type": kind} if kind else {})
    reply = httpx.post(f"{files_server.url}/v1/files", content=b"{}", headers=headers)
    assert reply.status_code == 415


def test_an_upload_that_stalls_ends(files_server: ServerProcess) -> None:
    def drip() -> Any:
        yield FILE_PART.encode()
        time.sleep(6)
        yield END.encode()

    headers = {"x-api-key": KEY_A, "content-type": FORM}
    began = time.monotonic()
    try:
        reply = httpx.post(
            f"{files_server.url}/v1/files", content=drip(), headers=headers, timeout=60
        )
        assert reply.status_code == 408
    except httpx.TransportError:
        pass  # the answer came, and the connection went, while the client still slept
    assert time.monotonic() - began < 30
    drafts = [p for p in content_folder(files_server).iterdir() if p.suffix == ".draft"]
    assert not drafts


def test_a_client_that_leaves_leaves_nothing(
    client: openai.OpenAI, files_server: ServerProcess
) -> None:
    class Gone(Exception):
        pass

    def half() -> Any:
        yield FILE_PART.encode() + b"x" * MIB
        raise Gone

    headers = {"x-api-key": KEY_A, "content-type": FORM}
    with pytest.raises(Gone):
        httpx.post(f"{files_server.url}/v1/files", content=half(), headers=headers)
    files_server.wait_for(
        lambda: not list(content_folder(files_server).iterdir()), "the draft to go", 20
    )
    assert not list(client.files.list())


def test_memory_does_not_grow_with_the_file(new_server: NewServer) -> None:
    server = new_server().wait_ready()

    def resident_mb() -> float:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    client = sdk(server)
    client.files.create(file=("warm", b"x" * MIB), purpose="user_data")
    before = resident_mb()
    path = server.folder / "big"
    with path.open("wb") as stream:
        for _ in range(64):
            stream.write(os.urandom(4 * MIB))
    with path.open("rb") as stream:
        # The SDK itself reads a file whole; the bare client streams it.
        reply = httpx.post(
            f"{server.url}/v1/files",
            files={"file": ("big", stream)},
            data={"purpose": "user_data"},
            timeout=300,
        )
    assert reply.status_code == 200, reply.text
    digest = io.BytesIO()
    size = 0
    with httpx.stream("GET", f"{server.url}/v1/files/{reply.json()['id']}/content") as download:
        for chunk in download.iter_bytes():
            size += len(chunk)
            digest.write(chunk[:1])
    assert size == 256 * MIB
    assert resident_mb() - before < 100


def test_files_outlive_the_server(new_server: NewServer, tmp_path: Path) -> None:
    data_dir = str(tmp_path / "kept")
    first = new_server(DATA_DIR=data_dir).wait_ready()
    stored = sdk(first).files.create(file=("a", b"kept"), purpose="user_data")
    first.kill()
    second = new_server(DATA_DIR=data_dir).wait_ready()
    assert sdk(second).files.retrieve(stored.id) == stored
    assert sdk(second).files.content(stored.id).read() == b"kept"
    second.signal()
    assert second.wait_exit() == 0


def test_a_server_without_storage_serves_on(new_server: NewServer, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    server = new_server(DATA_DIR=str(blocked)).wait_ready()
    with pytest.raises(openai.InternalServerError) as caught:
        sdk(server).files.create(file=("a", b"x"), purpose="user_data")
    assert caught.value.status_code == 503
    assert caught.value.code == "storage_unavailable"
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
        timeout=60,
    )
    assert answer.status_code == 200
