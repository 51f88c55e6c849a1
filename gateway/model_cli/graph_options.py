"""Options that the commands about ONNX graphs read alike."""

from __future__ import annotations

from pathlib import Path

from gateway.terminal import fail


def read_dims(given: list[str]) -> dict[str, int]:
    """``--dim name=number`` options; ends the command at one of another form."""
    dims = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not name or not number.isdigit() or not 0 < int(number) <= 2**31:
            fail(f"--dim is name=number, for example --dim sequence=128, not {text!r}")
        dims[name] = int(number)
    return dims


def cache_folder() -> Path:
    """MODEL_CACHE_DIR; ends the command where the settings cannot be read."""
    from gateway.settings import SettingsError, load_settings

    try:
        return load_settings().engine_config().cache_dir
    except SettingsError as error:
        fail(f"the settings are not usable:\n{error}")
