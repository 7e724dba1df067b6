"""S3 as AWS has it, in front of the tests' S3 server: each request is one of somebody, who needs the rights for it.

Whose request it is tells the access key: that of a role has the role's name (see `key_of_role`). A request that the
statements of its owner allow is signed anew and handed on; all others are answered 403, as S3 words it.
"""

from __future__ import annotations

import fnmatch
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from tests.support.s3server import KEYS, NOT_HANDED_ON, REGION, FaultyProxy, error

Statement = dict[str, Any]
Right = tuple[str, str]  # an action and the ARN that it is done to

# what signs a request, or belongs to a body that is sent in signed pieces
SIGNING = {
    "authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-decoded-content-length",
    "x-amz-trailer", "x-amz-sdk-checksum-algorithm", "x-amz-expected-bucket-owner", "host", "content-encoding",
}  # fmt: skip


def key_of_role(name: str) -> str:
    """The access key of whoever has taken a role."""
    return f"role.{name}"


def allows(statements: Iterable[Statement], action: str, resource: str, context: dict[str, str]) -> bool:
    """Whether IAM allows it: something does, and nothing denies it."""
    effects = {
        statement["Effect"]
        for statement in statements
        if any(matches(pattern, action.lower(), fold=True) for pattern in as_list(statement["Action"]))
        and any(matches(pattern, resource) for pattern in as_list(statement["Resource"]))
        and all(holds(kind, of_key, context) for kind, of_key in statement.get("Condition", {}).items())
    }
    return effects == {"Allow"}


def matches(pattern: str, value: str, *, fold: bool = False) -> bool:
    return fnmatch.fnmatchcase(value, pattern.lower() if fold else pattern)


def holds(kind: str, of_key: dict[str, Any], context: dict[str, str]) -> bool:
    """Whether a condition does; one of a kind that is not known here is an error, not a pass."""
    assert kind in {"StringEquals", "ArnEquals"}, f"a condition of the kind {kind}"
    if kind == "ArnEquals":  # which takes wildcards
        return all(
            any(matches(pattern, context.get(key, "")) for pattern in as_list(value)) for key, value in of_key.items()
        )
    return all(context.get(key) in as_list(value) for key, value in of_key.items())


def as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def rights_for(method: str, target: str, headers: dict[str, str], body: bytes) -> list[Right]:
    """What a request takes, as the user guide's table of S3's operations and their permissions has it."""
    path, _, query = target.partition("?")
    asked = set(urllib.parse.parse_qs(query, keep_blank_values=True))
    bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
    on_bucket, on_object = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{key}"
    if not key:
        if method == "POST" and "delete" in asked:
            keys = [element.text for element in ET.fromstring(body).iter() if element.tag.endswith("}Key")]
            return [("s3:DeleteObject", f"{on_bucket}/{name}") for name in keys]
        special = {
            "location": "GetBucketLocation", "uploads": "ListBucketMultipartUploads", "encryption":
            "GetEncryptionConfiguration", "versions": "ListBucketVersions",
        }  # fmt: skip
        for name, action in special.items():
            if name in asked:
                return [(f"s3:{action}", on_bucket)]
        return [("s3:ListBucket" if method in {"GET", "HEAD"} else "s3:CreateBucket", on_bucket)]
    if method in {"GET", "HEAD"}:
        return [("s3:ListMultipartUploadParts" if "uploadId" in asked else "s3:GetObject", on_object)]
    if method == "DELETE":
        return [("s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject", on_object)]
    rights = [("s3:PutObject", on_object)]
    if "x-amz-copy-source" in headers:
        source = urllib.parse.unquote(headers["x-amz-copy-source"]).lstrip("/").partition("?")[0]
        rights.append(("s3:GetObject", f"arn:aws:s3:::{source}"))
    return rights


def rights_on_key(rights: list[Right], key: str) -> list[Right]:
    """What the rights take besides where the bucket is encrypted with a customer's key."""
    needed = {"s3:GetObject": ["kms:Decrypt"], "s3:PutObject": ["kms:GenerateDataKey", "kms:Decrypt"]}
    return [(action, key) for right, _ in rights for action in needed.get(right, [])]


def whole(body: bytes) -> bytes:
    """The body of a request that was sent in pieces (aws-chunked)."""
    content, rest = b"", body
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if size == 0:
            break
        content, rest = content + rest[:size], rest[size + 2 :]
    return content


class Store(FaultyProxy):
    """The proxy. Functions tell it what it does not know by itself: who may do what, whose a bucket is, its key."""

    def __init__(
        self,
        server: str,
        statements_of: Callable[[str], list[Statement]],
        owner_of: Callable[[str], str],
        key_of: Callable[[str], str],
    ) -> None:
        self.statements_of, self.owner_of, self.key_of = statements_of, owner_of, key_of
        self.expired: set[str] = set()  # the access keys whose time is over
        self.denied: list[str] = []
        super().__init__(server)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.read()
        self.requests.append(f"{request.method} {request.raw_path}")
        if "aws-chunked" in headers.get("content-encoding", "") or "x-amz-decoded-content-length" in headers:
            body = whole(body)
        found = re.search(r"Credential=([^/]+)/", headers.get("authorization", ""))
        if not found:
            return error("AccessDenied", "Access Denied", 403)
        if found[1] in self.expired:
            return error("ExpiredToken", "The provided token has expired.", 400)
        refused = self.refusal(found[1], request.method, request.raw_path, headers, body)
        if refused:
            self.denied.append(f"{request.method} {request.raw_path}: {refused}")
            return error("AccessDenied", refused, 403)
        bucket = request.path.split("/")[1]
        if request.method == "GET" and "encryption" in request.query:
            return web.Response(text=encryption(self.key_of(bucket)), content_type="application/xml")
        signed = AWSRequest(
            request.method,
            self.server + request.raw_path,
            {name: value for name, value in headers.items() if name not in SIGNING | NOT_HANDED_ON},
            body,
        )
        keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
        S3SigV4Auth(keys, "s3", REGION).add_auth(signed)
        async with self.session.request(
            request.method, URL(signed.url, encoded=True), data=body, headers=dict(signed.headers.items()),
            allow_redirects=False, skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answered:  # fmt: skip
            content = await answered.read()
            key = request.path.partition("/")[2].partition("/")[2]
            if answered.status == 404 and key and not self.may_list(found[1], bucket):
                return error("AccessDenied", "Access Denied", 403)
            handed = {name: value for name, value in answered.headers.items() if name.lower() not in NOT_HANDED_ON}
            if request.method == "HEAD":
                handed["Content-Length"] = answered.headers.get("Content-Length", "0")
            if not key:
                handed["x-amz-bucket-region"] = "us-east-1"
            return web.Response(status=answered.status, body=content, headers=handed)

    def may_list(self, who: str, bucket: str) -> bool:
        """Whether somebody may know that there is no such object."""
        context = {"aws:ResourceAccount": self.owner_of(bucket)}
        return allows(self.statements_of(who), "s3:ListBucket", f"arn:aws:s3:::{bucket}", context)

    def refusal(self, who: str, method: str, target: str, headers: dict[str, str], body: bytes) -> str:
        """What stands against a request; nothing where it is allowed."""
        rights = rights_for(method, target, headers, body)
        bucket = urllib.parse.unquote(target).split("/")[1].partition("?")[0]
        owner = self.owner_of(bucket)
        if headers.get("x-amz-expected-bucket-owner", owner) != owner:
            return "Access Denied"
        context = {"aws:ResourceAccount": owner, "kms:ViaService": "s3.us-east-1.amazonaws.com"}
        statements = self.statements_of(who)
        key = self.key_of(bucket)
        for action, resource in rights + (rights_on_key(rights, key) if key else []):
            if not allows(statements, action, resource, context):
                return f"User: {who} is not authorized to perform: {action} on resource: {resource}"
        return ""


def encryption(key: str) -> str:
    """How a bucket is encrypted, as S3 words it."""
    how = f"<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{key}</KMSMasterKeyID>"
    default = how if key else "<SSEAlgorithm>AES256</SSEAlgorithm>"
    rule = f"<Rule><ApplyServerSideEncryptionByDefault>{default}</ApplyServerSideEncryptionByDefault></Rule>"
    return f"<ServerSideEncryptionConfiguration>{rule}</ServerSideEncryptionConfiguration>"
