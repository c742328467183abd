"""What all tests share: an environment that is quiet and leaves the tree alone, a real S3 server, a real Ray.

And being nobody for a while, since root may read everything.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import absl.logging
import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from tests.faulty_proxy import FaultyProxy

if TYPE_CHECKING:
    from tests.s3_server import Bucket, S3Server

QUIET = {
    # since 2.59 a local Ray writes a token into the home folder unless it is told
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    # no credentials but those that a test gives
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

CLUSTER_CPUS = 2
"""Logical, and just enough for two actors and two readers: each worker process costs 2 s of CPU time to start."""

FOREIGN = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")


NOBODY = 65534

MODULE_MARKS = re.compile(r"^pytestmark = (\[[^\]]*\]|.+)$", re.MULTILINE)
MARK = re.compile(r"pytest\.mark\.(\w+)")
LEFT_OUT = re.compile(r"\bnot (\w+)")
"""Of `-m`, as `make check` gives it: not ray and not s3 and …"""

EXIT_STATUS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(lambda: leave(config))  # what is registered first is done last
    os.environ.update(QUIET)
    for name in FOREIGN:
        os.environ.pop(name, None)
    # absl keeps the stderr of its import, here pytest's capture, and closes it at the first logging.config of another
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__
    folder = tempfile.TemporaryDirectory(prefix="hypothesis-")
    config.add_cleanup(folder.cleanup)
    set_hypothesis_home_dir(folder.name)
    # a busy machine is no wrong answer
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("tree", database=None, deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("tree")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files all of whose tests `-m` leaves out are not imported: imports were a quarter of the fast tests' time."""
    if collection_path.suffix != ".py" or not (left_out := LEFT_OUT.findall(config.option.markexpr)):
        return None
    marks = [mark for line in MODULE_MARKS.findall(collection_path.read_text()) for mark in MARK.findall(line)]
    return True if set(marks) & set(left_out) and " or " not in config.option.markexpr else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, long files go first: none is left for one process at the end, while the other has nothing to do."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


def leave(config: pytest.Config) -> None:
    """Where Ray was loaded, without the interpreter's own tidying: beside torch it ended once, behind 45 tests that had
    passed, in a segmentation fault of their libraries. All clusters are shut down by their fixtures."""
    if "ray" in sys.modules and EXIT_STATUS in config.stash and not hasattr(config, "workerinput"):
        config.get_terminal_writer().flush()
        os._exit(config.stash[EXIT_STATUS])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for all tests; each has buckets of its own."""
    from tests.s3_server import running_server  # here, not above: moto takes a second that most runs need not wait

    with running_server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Bucket:
    """A fresh bucket."""
    return s3_server.new_bucket()


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """In front of the server: one request in ten meets a fault."""
    with FaultyProxy(s3_server.endpoint).running() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of a real cluster of one node that all tests share: starting one costs seconds. Harm your own only."""
    from tests.clusters import one_node

    with one_node(CLUSTER_CPUS) as address:
        yield address


@pytest.fixture
def as_nobody() -> Callable[[Path], AbstractContextManager[None]]:
    """A context in which this process may read and write a folder, but not what is locked in it."""

    @contextmanager
    def context(folder: Path) -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        folder.chmod(0o777)
        for parent in folder.parents:  # pytest's own folders are closed to others
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005 and str(parent).count("/") > 1:
                parent.chmod(0o755)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return context
