"""Command line and TOML -> one validated settings object -> an exit code: what every job does before it does anything.

    0 done      1 failed while running (resumable)      2 the caller's mistake, before anything ran

Defaults < TOML (`--config`) < flags. The environment is not read. Unknown keys and flags are errors.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import AfterValidator, ValidationError, ValidationInfo
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from iqa_core.addresses import SCORES
from iqa_core.errors import CallerError, exit_code
from iqa_core.flags import StrictParser, json_object
from iqa_core.storage.outputs import require_lasting

ROOT = Path(__file__).resolve().parent.parent
"""The folder of this code: what a cluster is sent, and what a run notes the commit of."""

SECRET_FIELDS = frozenset({"storage_options"})
"""Settings whose values are never printed, and whose keys are not ours to rename."""


def _outlives_the_job(given: str, info: ValidationInfo) -> str:
    place = given.removeprefix(SCORES).partition("?where=")[0] if given.startswith(SCORES) else given
    require_lasting(place or given, f"--{_flag((info.field_name or '',))}")
    return given


Lasting = Annotated[str, AfterValidator(_outlives_the_job)]
"""A path or URI that is written to, or noted in an output; one that would vanish with a submitted job is refused."""


class JobSettings(BaseSettings):
    """Base of every job's settings: kebab-case flags, nested with dots, documented by the fields' docstrings."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_enforce_required=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller wrote: flags and TOML, which come in as init values."""
        return (init_settings,)


S = TypeVar("S", bound=JobSettings)


class _Parser(StrictParser):
    """A parser that says a mistake in one line."""

    def error(self, message: str) -> Any:
        raise CallerError(f"{message}; --help lists the flags")


def parse(settings_type: type[S], arguments: Sequence[str]) -> S:
    """Settings from flags and the TOML that `--config` names. Raises CallerError that names the key and its bound."""
    parser = _Parser(prog=f"python {Path(sys.argv[0]).name}", description=settings_type.__doc__)
    parser.add_argument("--config", type=Path, help="TOML file with the same keys; flags override it")
    taken, rest = _taken_first(settings_type, arguments)
    given = {name: value for name, value in vars(taken).items() if value is not None and name != "config"}
    try:
        flags: CliSettingsSource[Any] = CliSettingsSource(settings_type, cli_parse_args=rest, root_parser=parser)
        flagged = {name: value for name, value in flags().items() if name != "config"}
        return settings_type(**_merged(_toml(taken.config), {**flagged, **given}))
    except ValidationError as error:
        faults = "; ".join(f"--{_flag(fault['loc'])}: {_reason(fault)}" for fault in error.errors())
        raise CallerError(f"{faults}; --help lists the flags") from None
    except SettingsError as error:
        raise CallerError(str(error)) from None


def run(settings_type: type[S], main: Callable[[S], int]) -> int:
    """Parse, run, and turn errors into exit codes; a caller's mistake is one message without a traceback."""
    return exit_code(lambda: main(parse(settings_type, sys.argv[1:])))


def _taken_first(settings_type: type[JobSettings], arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """`--config`, repeatable flags, JSON objects, and the rest.

    pydantic-settings cuts values at commas, and paths have some; of two objects it would silently merge the keys.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("--config", type=Path)
    for name, field in settings_type.model_fields.items():
        flag, kind = f"--{_flag((name,))}", get_origin(field.annotation)
        if kind is list:
            parser.add_argument(flag, action="append")
        elif kind is dict:
            parser.add_argument(flag, type=json_object)
    return parser.parse_known_args(list(arguments))


def _toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return _snake(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise CallerError(f"--config {path}: {error}") from error


def _snake(table: dict[str, Any]) -> dict[str, Any]:
    """TOML keys may be written like the flags."""
    renamed = {key.replace("-", "_"): value for key, value in table.items()}
    if len(renamed) < len(table):
        twice = next(key for key in table if "-" in key and key.replace("-", "_") in table)
        raise CallerError(f"--config: {twice} is there twice, once as {twice.replace('-', '_')}; leave one out")
    return {
        key: _snake(value) if isinstance(value, dict) and key not in SECRET_FIELDS else value
        for key, value in renamed.items()
    }


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _merged(below[key], value) if both else value
    return merged


def _flag(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part).replace("_", "-") for part in location if not isinstance(part, int))


def _reason(fault: Any) -> str:
    reasons = {"missing": "is required", "extra_forbidden": "there is no such setting"}
    shown = "" if fault["loc"][0] in SECRET_FIELDS else f" (got {fault['input']!r})"
    return reasons.get(fault["type"]) or f"{fault['msg']}{shown}"
