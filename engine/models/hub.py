"""Downloads a model from a Hugging Face hub: config, tokenizer and safetensors, nothing else.

A revision is pinned to its commit first, so that a download that spans a change upstream
does not mix two states. Every file is compared with the hash in the hub's listing before
the folder counts as complete. ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` mean what
they mean to huggingface_hub, which does the transfers and resumes broken ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from engine.base import EngineStartError
from engine.models.find import require_space
from engine.models.fingerprint import CHUNK, file_digest

Progress = Callable[[str, float | None], None]

WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "model*.safetensors",
    # How sentence-transformers' models pool.
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
COMPLETE = ".complete"  # written into a folder once every file in it has been verified
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it; ``sha256`` for large files, else git's ``blob_id``."""

    name: str
    size: int
    sha256: str | None
    blob_id: str | None


def download(
    model: str,
    revision: str | None,
    cache_dir: Path,
    progress: Progress,
    check: Callable[[Path], None] = lambda _: None,
) -> Path:
    """The folder with ``model`` at ``revision``, complete and verified. Blocks.

    Without a network a copy that was completed before serves the same revision.

    Args:
        check: looks at the folder when only the config has arrived, and raises to go no further.

    Raises:
        EngineStartError: with the cause and the fix. Files that were complete are kept.
    """
    store = cache_dir / "hub" / model.replace("/", "--")
    if revision and _COMMIT.fullmatch(revision) and (store / revision / COMPLETE).is_file():
        return store / revision
    progress(f"asking the hub for {model}", None)
    try:
        with explained(model, revision):
            commit, files = listing(model, revision)
    except EngineStartError:
        kept = kept_copy(store, revision)
        if kept is None:
            raise
        progress("the hub does not answer: serving the copy that was downloaded before", None)
        return kept
    folder = store / commit
    if not (folder / COMPLETE).is_file():
        missing = [f for f in files if not (folder / f.name).is_file()]
        require_space(folder, sum(f.size for f in missing) + 2**24, f"downloading {model}")
        with explained(model, revision):
            fetch(model, commit, files, folder, progress, check)
        verify(model, folder, files, progress)
        (folder / COMPLETE).touch()
    remember(store, revision, commit)
    return folder


def listing(model: str, revision: str | None) -> tuple[str, list[RemoteFile]]:
    """The commit that ``revision`` stands for, and the wanted files in it."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(
        model, revision=revision, files_metadata=True
    )
    files = [
        RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id)
        for s in info.siblings or []
        if any(fnmatch(s.rfilename, p) and s.rfilename.count("/") == p.count("/") for p in WANTED)
    ]
    if not any(f.name.endswith(".safetensors") for f in files):
        raise EngineStartError(
            f"{model} has no safetensors files on the hub: pickled weights are not loaded; take "
            "another revision or model"
        )
    if info.sha is None:
        raise EngineStartError(f"the hub names no commit for {model}: set REVISION to one")
    return info.sha, files


def fetch(
    model: str,
    commit: str,
    files: list[RemoteFile],
    folder: Path,
    progress: Progress,
    check: Callable[[Path], None],
) -> None:
    """Download what is missing in ``folder``: the config, ``check``, the rest, large files last."""
    from huggingface_hub import hf_hub_download

    total = max(1, sum(f.size for f in files))
    done = 0
    for file in sorted(files, key=lambda f: (f.name != "config.json", f.size)):
        stage = f"downloading {model}: {file.name}"
        hf_hub_download(
            model,
            file.name,
            revision=commit,
            local_dir=folder,
            endpoint=os.environ.get("HF_ENDPOINT"),
            tqdm_class=meter(partial(_tell, progress, stage, done, total)),
        )
        done += file.size
        progress(stage, done / total)
        if file.name == "config.json":
            check(folder)


def _tell(progress: Progress, stage: str, before: int, total: int, arrived: int) -> None:
    progress(stage, min(1.0, (before + arrived) / total))


def meter(report: Callable[[int], None]) -> Any:
    """A silent progress bar class that tells ``report`` how many bytes have arrived."""
    bar: Any = importlib.import_module("tqdm").tqdm  # comes with huggingface_hub

    def start(self: Any, *_: Any, **options: Any) -> None:
        bar.__init__(self, disable=True)
        self.arrived = int(options.get("initial") or 0)

    def update(self: Any, count: float | None = 1) -> None:
        self.arrived += int(count or 0)
        report(self.arrived)

    return type("Meter", (bar,), {"__init__": start, "update": update})


def verify(model: str, folder: Path, files: list[RemoteFile], progress: Progress) -> None:
    """Compare every file with its listed hash; removes and reports one that differs."""
    for file in files:
        progress(f"verifying {file.name}", None)
        path = folder / file.name
        if file.sha256 is not None:
            good = file_digest(path) == file.sha256
        else:
            good = file.blob_id is None or git_blob_id(path) == file.blob_id
        if not good:
            path.unlink()
            raise EngineStartError(
                f"{file.name} of {model} arrived damaged (its hash is not the hub's) and was "
                "removed: start again to download it anew"
            )


def git_blob_id(path: Path) -> str:
    """Git's object id of a file: SHA-1 over a small header and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def remember(store: Path, revision: str | None, commit: str) -> None:
    """Note which commit a revision stood for, for starts without a network."""
    known = _revisions(store)
    if known.get(revision or "") == commit:
        return
    known[revision or ""] = commit
    part = store / f"revisions.{os.getpid()}.part"
    part.write_text(json.dumps(known), encoding="utf-8")
    os.replace(part, store / "revisions.json")
    for folder in store.iterdir():  # superseded downloads; a commit pinned by name is kept
        if folder.is_dir() and folder.name not in known.values():
            shutil.rmtree(folder, ignore_errors=True)


def kept_copy(store: Path, revision: str | None) -> Path | None:
    """The complete folder that ``revision`` stood for when the hub was last reached."""
    folder = store / _revisions(store).get(revision or "", "none")
    return folder if (folder / COMPLETE).is_file() else None


def _revisions(store: Path) -> dict[str, str]:
    try:
        value = json.loads((store / "revisions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def explained(model: str, revision: str | None) -> Iterator[None]:
    """Turn huggingface_hub's exceptions into one sentence with the fix."""
    from huggingface_hub import errors

    where = f"{model}@{revision}" if revision else model
    try:
        yield
    except EngineStartError:
        raise
    except errors.GatedRepoError as error:
        raise EngineStartError(
            f"{model} is gated: accept its terms on the hub's page of the model and set HF_TOKEN "
            "to a token of that account"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise EngineStartError(
            f"{model} has no revision {revision}: set REVISION to a branch, tag or commit of it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise EngineStartError(
            f"the hub has no model {model} that this token may read: check the spelling of "
            "MODEL_NAME, or set HF_TOKEN for a private model"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise EngineStartError(
            f"HF_HUB_OFFLINE is set and {where} was never downloaded: unset it, or set MODEL_NAME "
            "to a local folder"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        raise EngineStartError(
            f"the hub answered {status} for {where}: try again later, or check HF_TOKEN"
        ) from error
    except Exception as error:  # the HTTP library underneath, its name changed twice
        raise EngineStartError(
            f"the hub could not be reached for {where} ({type(error).__name__}): check the network "
            "and HF_ENDPOINT, or name a local folder (MODEL_NAME)"
        ) from error
