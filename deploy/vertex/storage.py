"""Downloads a folder of Cloud Storage over its JSON API, as a container may that has no SDK.

The token is that of the machine's service account, from the metadata server. Two variables that
Google's own libraries know point elsewhere: ``GCE_METADATA_HOST``, and ``STORAGE_EMULATOR_HOST``,
which by itself goes without a token.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx

from deploy.vertex import VertexError
from engine.base import EngineStartError
from engine.models.find import require_space

ATTEMPTS = 6
AT_ONCE = 4
_CHUNK = 4 * 1024 * 1024
_TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105
_TOKEN_S = 300.0
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Remote:
    """A file below the folder: its name there, bytes, and MD5 where Cloud Storage has one."""

    name: str
    object: str
    size: int
    md5: bytes | None


class Bucket:
    """One bucket, read with the machine's service account. Safe to use from several threads."""

    def __init__(self, name: str, pause: Callable[[float], None]) -> None:
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        address = emulator or "https://storage.googleapis.com"
        self._base = f"{address}/storage/v1/b/{quote(name, safe='')}/o"
        self._needs_token = not emulator or "GCE_METADATA_HOST" in os.environ
        self._token, self._token_until = "", 0.0
        self._client = httpx.Client(timeout=60.0)
        self._pause = pause

    def close(self) -> None:
        """End its connections."""
        self._client.close()

    def list(self, prefix: str) -> list[Remote]:
        """Every object below ``prefix``. Raises VertexError."""
        found: list[Remote] = []
        query = {"prefix": prefix, "fields": "nextPageToken,items(name,size,md5Hash)"}
        while True:
            page = self._retried(f"listing {prefix}", lambda: self._page(query))
            for item in page.get("items", []):
                name = item["name"].removeprefix(prefix)
                if not name or name.endswith("/"):
                    continue
                if ".." in PurePosixPath(name).parts or name.startswith("/"):
                    raise VertexError(f"{item['name']} leads out of its folder: rename it")
                md5 = base64.b64decode(item["md5Hash"]) if "md5Hash" in item else None
                found.append(Remote(name, item["name"], int(item["size"]), md5))
            if "nextPageToken" not in page:
                return found
            query["pageToken"] = page["nextPageToken"]

    def fetch(self, remote: Remote, target: Path) -> None:
        """Download one file, whole and compared with its size and MD5. Raises VertexError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        self._retried(f"downloading {remote.name}", lambda: self._go_on(remote, part))
        part.replace(target)

    def _go_on(self, remote: Remote, part: Path) -> None:
        """From where an earlier attempt ended."""
        kept = part.stat().st_size if part.exists() else 0
        digest = hashlib.md5(usedforsecurity=False)
        if 0 < kept <= remote.size:
            with part.open("rb") as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
        if kept < remote.size or kept == 0:
            url = f"{self._base}/{quote(remote.object, safe='')}"
            headers = {**self._headers(), **({"Range": f"bytes={kept}-"} if kept else {})}
            with self._client.stream(
                "GET", url, params={"alt": "media"}, headers=headers
            ) as answer:
                answer.raise_for_status()
                if kept and answer.status_code != 206:
                    kept, digest = 0, hashlib.md5(usedforsecurity=False)
                with part.open("ab" if kept else "wb") as file:
                    for block in answer.iter_raw():
                        digest.update(block)
                        file.write(block)
        size = part.stat().st_size
        if size != remote.size or remote.md5 not in (None, digest.digest()):
            if size >= remote.size:
                part.unlink()  # cut short it is gone on with, wrong it is begun anew
            raise Damaged(f"{size} of {remote.size} bytes have come, or others than were stored")

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        answer = self._client.get(self._base, params=query, headers=self._headers())
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _headers(self) -> dict[str, str]:
        if not self._needs_token:
            return {}
        if time.monotonic() > self._token_until:
            host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
            answer = self._client.get(
                f"http://{host}{_TOKEN_PATH}", headers={"Metadata-Flavor": "Google"}
            )
            answer.raise_for_status()
            self._token = answer.json()["access_token"]
            self._token_until = time.monotonic() + _TOKEN_S
        return {"Authorization": f"Bearer {self._token}"}

    def _retried(self, doing: str, act: Callable[[], Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return act()
            except (httpx.HTTPError, Damaged) as error:
                if _is_final(error) or attempt + 1 == ATTEMPTS:
                    raise VertexError(f"{doing}: {_explain(error)}") from None
                self._pause(min(30.0, 0.5 * 2**attempt))
        raise AssertionError("unreachable")


class Damaged(Exception):
    """What has arrived is not what is stored."""


@contextmanager
def opened(uri: str, pause: Callable[[float], None] = time.sleep) -> Iterator[tuple[Bucket, str]]:
    """The bucket and the prefix of a ``gs://`` folder. Raises VertexError."""
    name, _, prefix = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not name:
        raise VertexError(f"{uri} is no gs:// folder")
    bucket = Bucket(name, pause)
    try:
        yield bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    finally:
        bucket.close()


def download(
    uri: str, folder: Path, progress: Progress, pause: Callable[[float], None] = time.sleep
) -> None:
    """Bring a ``gs://`` folder to ``folder``; whole files that are there stay.

    Args:
        pause: waits that many seconds before another attempt.

    Raises:
        VertexError: it cannot be had; the message says why.
    """
    with opened(uri, pause) as (bucket, prefix):
        files = bucket.list(prefix)
        if not files:
            raise VertexError(f"{uri} is empty, or not there: look at artifact in the spec")
        missing = [each for each in files if not _is_there(folder, each)]
        total = sum(each.size for each in missing)
        try:
            require_space(folder, total, f"downloading {uri}")
        except EngineStartError as error:
            raise VertexError(str(error)) from None

        def fetch(each: Remote) -> None:
            bucket.fetch(each, folder / each.name)
            progress(f"{each.name}: {each.size / 1e6:.1f} MB")

        progress(f"downloading {len(missing)} files, {total / 1e9:.2f} GB")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch, sorted(missing, key=lambda each: -each.size)))


def _is_there(folder: Path, remote: Remote) -> bool:
    path = folder / remote.name
    return path.is_file() and path.stat().st_size == remote.size


def _is_final(error: Exception) -> bool:
    """Whether asking again is of no use."""
    if not isinstance(error, httpx.HTTPStatusError):
        return False
    return error.response.status_code not in (408, 429) and error.response.status_code < 500


def _explain(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        code = error.response.status_code
        if code in (401, 403):
            return (
                f"Cloud Storage answered {code}: the deployment's service_account needs "
                "roles/storage.objectViewer on the bucket"
            )
        return f"Cloud Storage answered {code}"
    return f"{type(error).__name__} {error}".strip()
