"""An S3 server of our own (nanio): objects in a folder, a free loopback port, generated keys."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.quick_start.private import private_directory, remembered_secret
from deployments.quick_start.processes import LOOPBACK, remembered_port
from deployments.quick_start.service import HasService, Service, answer

REGION = "us-east-1"


class S3Server(HasService):
    """The server whose buckets, log, port and keys live in `directory`.

    `owned=True` stops it with this process.
    """

    def __init__(self, directory: Path, *, owned: bool = False) -> None:
        self.directory = directory
        self.data_directory = directory / "buckets"
        self.service = Service("s3", directory, owned=owned)

    @property
    def endpoint_url(self) -> str:
        return f"http://{LOOPBACK}:{remembered_port(self.directory / 'port', renew=False)}"

    @property
    def access_key_id(self) -> str:
        drawn = remembered_secret(self.directory / "access-key")
        return "embedded" + "".join(filter(str.isalnum, drawn))[:12]

    @property
    def secret_access_key(self) -> str:
        return remembered_secret(self.directory / "secret-key")

    def start(self) -> None:
        """The server answers. Starting a running one does nothing. Raises BadSetting with the reason."""
        if self.is_running:
            return
        private_directory(self.directory)
        private_directory(self.data_directory)
        port = remembered_port(self.directory / "port", renew=True)
        options = ["--host", LOOPBACK, "--port", str(port), "--data-dir", str(self.data_directory.resolve())]
        quiet = ["--log-level", "warning", "--no-access-log"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANIO_")}
        keys = {"NANIO_ACCESS_KEY": self.access_key_id, "NANIO_SECRET_KEY": self.secret_access_key}
        self.service.start(
            [sys.executable, "-m", "nanio", "serve", *options, *quiet],
            environment={**inherited, **keys},
            directory=self.directory,
            answers=self._answers,
        )

    def stop(self) -> None:
        """The server does not run; what it acknowledged stays on disk."""
        self.service.stop(patience=5.0)

    @cached_property
    def client(self) -> Any:
        """A boto3 client for this server, of use while it keeps its port."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=REGION,
            config=Config(
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
                proxies={},
            ),
        )

    def create_bucket(self, name: str) -> None:
        """The bucket exists; one that is there already stays as it is."""
        try:
            self.client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _answers(self) -> bool:
        said = answer(self.endpoint_url)
        return said is not None and said.status_code < 500
