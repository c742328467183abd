"""A real HTTP S3 server on a free loopback port (moto), and what tests do to it behind the product's back."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

KEY, SECRET = "test-access-key", "test-very-secret-key"
"""The server takes any; tests look for the secret where it must not be."""

UPLOAD_THREADS = 4


def storage_options(endpoint: str) -> dict[str, Any]:
    """What the product is given to talk to this endpoint."""
    return {"endpoint_url": endpoint, "key": KEY, "secret": SECRET}


class S3Server:
    """The running server, seen directly, without faults."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(max_pool_connections=UPLOAD_THREADS),
        )

    def new_bucket(self) -> Bucket:
        return self.named_bucket(f"bucket-{uuid.uuid4().hex}")

    def named_bucket(self, name: str) -> Bucket:
        self._client.create_bucket(Bucket=name)
        return Bucket(self, name, self._client)


class Bucket:
    """One bucket, of one test."""

    def __init__(self, server: S3Server, name: str, client: Any) -> None:
        self.endpoint = server.endpoint
        self.name = name
        self._client = client

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}".rstrip("/")

    def put(self, key: str, data: bytes) -> str:
        """The URI of the new object."""
        self._client.put_object(Bucket=self.name, Key=key, Body=data)
        return self.uri(key)

    def put_all(self, objects: dict[str, bytes]) -> None:
        with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
            list(pool.map(self.put, objects.keys(), objects.values()))

    def put_tree(self, folder: Path) -> None:
        """Every file of a local folder, under its relative path."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.put_all({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})

    def open_to_all(self) -> None:
        """Let whoever asks read, without credentials."""
        whatever = [f"arn:aws:s3:::{self.name}", f"arn:aws:s3:::{self.name}/*"]
        allowed = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": whatever}
        self._client.put_bucket_policy(Bucket=self.name, Policy=json.dumps({"Statement": [allowed]}))

    def get(self, key: str) -> bytes:
        data: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def clear(self) -> None:
        for key in self.keys():
            self._client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def uploads(self) -> list[Any]:
        """Multipart uploads that were begun and neither completed nor aborted."""
        found: list[Any] = self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return found

    def fetch_tree(self, prefix: str, folder: Path) -> None:
        """Every object under a prefix as a local file under the same relative path."""
        for key in self.keys(prefix):
            path = folder / os.path.relpath(key, prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))


@contextmanager
def running_server() -> Iterator[S3Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
