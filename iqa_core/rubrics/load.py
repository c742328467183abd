"""A rubric's name, TOML file or annotation files -> the questions an assessor asks, checked."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from iqa_core.addresses import Address, parse_address
from iqa_core.errors import CallerError
from iqa_core.rubrics import sa_bench
from iqa_core.rubrics.rubric import Rubric
from iqa_core.rubrics.written.rubric import WrittenRubric

AnyRubric: TypeAlias = Rubric | WrittenRubric
"""A rubric with a closed set of answers to each question, or one whose answer is written."""


def rubric_names() -> tuple[str, ...]:
    """Names of the rubrics with closed sets of answers that ship with the package, sorted."""
    return _names_in("iqa_core.rubrics")


def written_names() -> tuple[str, ...]:
    """Names of the written rubrics that ship with the package, sorted."""
    return _names_in("iqa_core.rubrics.written")


def _names_in(package: str) -> tuple[str, ...]:
    files = resources.files(package).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def shipped_name(digest: str) -> str | None:
    """Name of the rubric that ships and has this digest."""
    names = (*rubric_names(), *written_names())
    return next((name for name in names if load_any_rubric(name).digest == digest), None)


def load_rubric(name: str) -> Rubric:
    """The same, of rubrics with closed sets of answers alone. Raises CallerError for a written one as well."""
    return closed_set(load_any_rubric(name), f"rubric {name}")


def closed_set(rubric: AnyRubric, what: str, instead: str = "") -> Rubric:
    """The rubric, if its answers are closed sets. Raises CallerError for a written one.

    what: asks for it; instead: a way out, which ends the message.
    """
    if isinstance(rubric, WrittenRubric):
        raise CallerError(
            f"{what}: {rubric.id} is a written rubric, and this needs one whose questions have closed sets of answers"
            f"{instead and '; '}{instead}"
        )
    return rubric


def load_any_rubric(name: str) -> AnyRubric:
    """A shipped rubric by its name, any rubric by the path of its `.toml` file, or the words of annotation files.

    name: such as `interior-v4`, `rooms.toml` or `sa-bench:SA-BENCH/annotations?prompt=4`.
    Raises CallerError when there is no such rubric, or when a file breaks a rule; the message says which.
    """
    address = _address(name)
    if address.kind:
        return _from_annotations(name, address)
    if name.endswith(".toml"):
        try:
            return parse_rubric(Path(name).expanduser().read_bytes(), name)
        except FileNotFoundError:
            raise CallerError(f"rubric file {name} does not exist") from None
        except OSError as error:
            raise CallerError(f"rubric file {name} cannot be read: {error.strerror}") from None
    for names, package in ((rubric_names(), "iqa_core.rubrics"), (written_names(), "iqa_core.rubrics.written")):
        if name in names:
            return parse_rubric(resources.files(package).joinpath(f"{name}.toml").read_bytes(), name)
    raise CallerError(
        f"no rubric {name!r}; there are {', '.join((*rubric_names(), *written_names()))}, or give a path that ends in "
        f".toml, or {sa_bench.KIND}:<annotation folder>?prompt=4"
    )


def _address(name: str) -> Address:
    try:
        return parse_address(name, frozenset({sa_bench.KIND}))
    except ValueError as error:
        raise CallerError(f"rubric {name}: {error}") from None


def _from_annotations(name: str, address: Address) -> Rubric:
    prompt = address.options.get("prompt", "")
    if set(address.options) != {"prompt"} or not re.fullmatch(r"[1-9][0-9]{0,5}", prompt):
        raise CallerError(
            f"rubric {name}: say which prompt version, as in {sa_bench.KIND}:<annotation folder>?prompt=4"
        )
    try:
        return sa_bench.rubric_of(address.place, int(prompt))
    except ValidationError as error:
        raise CallerError(f"rubric {name}: {_faults(error)}") from None


def parse_rubric(data: bytes, origin: str) -> AnyRubric:
    """The rubric of a TOML file's bytes. origin: what the error, CallerError, calls it."""
    try:
        content: dict[str, Any] = tomllib.loads(data.decode())
        if (kind := content.get("kind")) is None:
            return Rubric.model_validate(content)
        if kind != "written":
            raise CallerError(f'rubric {origin}: kind is {kind!r}; it is "written", or left out')
        return WrittenRubric.model_validate(content)
    except ValidationError as error:
        raise CallerError(f"rubric {origin}: {_faults(error)}") from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, a thousand brackets
        raise CallerError(f"rubric {origin} is not TOML: {error}") from None


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'rubric'}: {e['msg']}" for e in error.errors())


def rubric_named(id: str, given: str | None) -> str:
    """A rubric's id, and behind it what was given for it unless that is the same; a path is cut to the file's name."""
    if given is None:
        return f"{id} of the checkpoint"
    origin = given.rsplit("/", 1)[-1] if given.endswith(".toml") else given
    return id if origin == id else f"{id} of {origin}"
