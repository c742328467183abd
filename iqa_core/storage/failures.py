"""What a store, its client or a disk raises -> whose fault it is, whether it is transient, and one name for it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

from iqa_core.errors import CallerError, IqaError, RunError
from iqa_core.storage.uris import is_local

_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Error codes about the credentials, not about the object: they stop the run."""

_CREDENTIAL_ERRORS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
)
"""Errors about the credentials that the client raises before it sends a request."""

_NO_SUCH_NAME = frozenset({"InvalidBucketName", "InvalidURI", "KeyTooLongError", "ParamValidationError"})
"""Error codes for a name that no object can have."""

_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
"""Error codes of transient failures, though most of them come with status 400."""

FAILURES = {
    "a host name that is not known": frozenset({"gaierror"}),
    "a refused connection": frozenset({"ConnectionRefusedError"}),
    "a TLS failure": frozenset({"SSLError", "ClientConnectorCertificateError"}),
    "a timeout": frozenset({"TimeoutError", "ConnectTimeoutError", "ReadTimeoutError", "FSTimeoutError"}),
    "a cut connection": frozenset(
        {
            "BrokenPipeError",
            "ClientPayloadError",
            "ConnectionAbortedError",
            "ConnectionClosedError",
            "ConnectionResetError",
            "IncompleteReadError",
            "ServerDisconnectedError",
        }
    ),
    "an answer that is no HTTP": frozenset({"BadStatusLine"}),
}
"""Words for people -> names of classes in the standard library, aiohttp, botocore and fsspec, so that none of them is
imported here."""


class Missing(IqaError):
    """There is nothing at this URI."""


class NoSuchStorage(Missing):
    """Nothing that is installed or known speaks this scheme."""


class Forbidden(IqaError):
    """This URI may not be read with these (valid) credentials."""


class FetchFailed(IqaError):
    """Reading or writing failed again and again, or for a reason that is neither of the above."""


class Oversized(Exception):
    """The object is larger than the caller can take; nothing of it was read."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


class Shorter(Exception):
    """The object ends before the range does: it was replaced since it was listed."""


def check_size(size: int | None, end: int | None, max_bytes: int | None) -> None:
    """Raises Shorter or Oversized for an object of this size, of which the bytes up to `end` (None: all) are wanted."""
    if size is not None and end is not None and size < end:
        raise Shorter(f"it has {size} bytes, {end} were expected")
    if size is not None and end is None and max_bytes is not None and size > max_bytes:
        raise Oversized(size)


def final_meaning(error: Exception, uri: str) -> IqaError | None:
    """The error of ours that a permanent failure means; None for a transient one, which is worth another try."""
    code = error_code(error)
    name = type(error).__name__
    if code in _CREDENTIAL_CODES or name in _CREDENTIAL_ERRORS:
        return RunError(f"{uri}: the credentials are refused ({code or error}); renew them and run the same command")
    if _is_missing(error) or {code, name} & _NO_SUCH_NAME:
        return Missing(f"{uri}: there is nothing at this place")
    is_no_name = isinstance(error, ValueError) and is_local(uri)  # a zero byte in a path
    if (
        is_no_name
        or isinstance(error, UnicodeEncodeError)
        or getattr(error, "errno", None) in {errno.ELOOP, errno.ENAMETOOLONG}
    ):
        return Missing(f"{uri}: nothing can lie at such a place")
    if isinstance(error, Shorter):
        return FetchFailed(f"{uri}: {error}; it was replaced since it was listed")
    if isinstance(error, ImportError):
        return CallerError(f"{uri}: a package that it needs is not installed ({error})")
    if isinstance(error, TypeError):
        return CallerError(f"{uri}: it cannot be opened with these --storage-options ({error})")
    status = http_status(error)
    if isinstance(error, PermissionError) or status in {401, 403}:
        return Forbidden(f"{uri}: access is denied")
    if status is not None and status not in _PASSING_STATUS and code not in _PASSING_CODES:
        return FetchFailed(f"{uri}: the store answers {failure_named(error)}")
    return None


def _is_missing(error: BaseException) -> bool:
    """Whether an error says that nothing is there. fsspec's HTTP raises FileNotFoundError for any failure, with
    that as its cause."""
    cause = error.__cause__
    is_about_the_name = cause is None or isinstance(cause, LookupError | FileNotFoundError | ValueError)
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return is_missing and (is_about_the_name or http_status(cause) in {404, 410})


def error_code(error: BaseException | None) -> str | None:
    """The store's own code, wherever in the chain of causes it stands; None where no store has answered."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code"))
        error = error.__cause__
    return None


def http_status(error: BaseException | None) -> int | None:
    """Status of the answer that an error stands for; None where none arrived."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        if isinstance(status := getattr(error, "status", None), int):
            return status
        error = error.__cause__
    return None


def failure_named(error: BaseException | None) -> str:
    """What went wrong: the same words for the same failure, whichever library met it.

    The store's own code where it has answered with one, else the status of its answer, else what became of the
    connection.
    """
    code, status = error_code(error), http_status(error)
    if code is not None and not code.isdigit():
        return code
    chain = list(_chain(error))
    named = (word for link in reversed(chain) if (word := _word_of(link)) is not None)
    if (word := next(named, None)) is not None:
        return word
    return f"HTTP {status}" if status is not None else type(chain[-1]).__name__ if chain else "nothing known"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it stands for, outermost first; botocore keeps that in an argument."""
    while error is not None:
        yield error
        inside = getattr(error, "kwargs", {}).get("error")
        error = error.__cause__ or (inside if isinstance(inside, BaseException) else None)


def _word_of(error: BaseException) -> str | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    for word, kinds in FAILURES.items():
        if names & kinds:
            return word
    if isinstance(error, OSError) and error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return "a host that cannot be reached"
    return None
