"""What a store's refusal means for the person who runs the job."""

from __future__ import annotations

import re

from movielens.contract import PipelineError

CREDENTIALS_NOT_ACCEPTED = (
    "the store does not accept these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_SESSION_TOKEN, or AWS_PROFILE"
)
NO_CREDENTIALS = (
    "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
    "machine a role"
)
NO_BUCKET = "there is no such bucket; check its name, and AWS_ENDPOINT_URL where it is set"
ANOTHER_REGION = "the bucket is in another region; check AWS_DEFAULT_REGION"
ACCESS_DENIED = "access denied; check what these credentials are allowed to do there"
NO_CONNECTOR = "this Spark lacks the S3 connector; docs/aws.md tells how to add it"
UNREACHABLE = "the store cannot be reached"
OVERLOADED = "the store is overloaded or out of order; try again later"
SAFE_MODE = "the namenode is in safe mode; try again later"
NO_DATANODE = "no datanode takes what is written; look at their health, and at the space that they have"
QUOTA = "a quota of the store is used up"

# The error codes of S3: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
CODES = {
    "InvalidAccessKeyId": CREDENTIALS_NOT_ACCEPTED,
    "SignatureDoesNotMatch": CREDENTIALS_NOT_ACCEPTED,
    "InvalidToken": CREDENTIALS_NOT_ACCEPTED,
    "ExpiredToken": CREDENTIALS_NOT_ACCEPTED,
    "TokenRefreshRequired": CREDENTIALS_NOT_ACCEPTED,
    "InvalidClientTokenId": CREDENTIALS_NOT_ACCEPTED,
    "NoSuchBucket": NO_BUCKET,
    "PermanentRedirect": ANOTHER_REGION,
    "AuthorizationHeaderMalformed": ANOTHER_REGION,
    "AccessDenied": ACCESS_DENIED,
    "Forbidden": ACCESS_DENIED,
    "403": ACCESS_DENIED,
    "SlowDown": OVERLOADED,
    "ServiceUnavailable": OVERLOADED,
    "InternalError": OVERLOADED,
    "500": OVERLOADED,
    "502": OVERLOADED,
    "503": OVERLOADED,
    "504": OVERLOADED,
}

# What S3A, which wraps what it was told, and Sail, whose errors are text, say of the same
SIGNS = (
    *((rf"\b{code}\b", meaning) for code, meaning in CODES.items() if not code.isdigit()),
    ("loading credentials", NO_CREDENTIALS),
    ("NoAuthWithAWSException", NO_CREDENTIALS),
    ("Unable to load credentials", NO_CREDENTIALS),
    ("Profile file", NO_CREDENTIALS),
    ("UnknownStoreException", NO_BUCKET),
    ("without LOCATION", ANOTHER_REGION),
    ("AWSRedirectException", ANOTHER_REGION),
    ("No FileSystem for scheme", NO_CONNECTOR),
    ("S3AFileSystem not found", NO_CONNECTOR),
    ("AccessControlException", ACCESS_DENIED),
    ("Connection refused", UNREACHABLE),
    ("UnknownHost", UNREACHABLE),
    ("Connection reset", UNREACHABLE),
    ("Connection was closed", UNREACHABLE),
    ("error sending request", UNREACHABLE),
    ("Unable to execute HTTP request", UNREACHABLE),
    ("timed out", UNREACHABLE),
    ("(Socket|Connect)TimeoutException", UNREACHABLE),
    ("End of File Exception between", UNREACHABLE),
    ("Service Unavailable", OVERLOADED),
    ("[Cc]ode: 50[0-4]", OVERLOADED),
    ("SafeModeException", SAFE_MODE),
    ("could only be written to 0 of the", NO_DATANODE),
    ("QuotaExceededException", QUOTA),
)


class StorageError(PipelineError):
    """A store or a disk that refuses, or that does not answer."""


def meaning_of(said: str, path: str) -> str | None:
    """What a refusal by the store of the path means that an engine hands on as text; None where it is none."""
    meaning = next((meaning for sign, meaning in SIGNS if re.search(sign, said)), None)
    return unreachable(path) if meaning == UNREACHABLE else meaning


def unreachable(path: str) -> str:
    """What it means that the store of the path is not reached."""
    return f"{UNREACHABLE}; {what_to_check(path)}"


def what_to_check(path: str) -> str:
    """What to look at where the store of the path gives no answer."""
    place = "that a namenode runs at that address" if path.startswith("hdfs:") else "AWS_ENDPOINT_URL where it is set"
    return f"check the network, and {place}"
