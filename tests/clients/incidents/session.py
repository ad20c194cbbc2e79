"""A client of DynamoDB on boto3. Arguments are words KEY=VALUE: endpoint, ca, at_once (calls at once, each by a thread of its
own; 1), gaps (seconds between the rounds of calls, with commas), read_timeout (seconds), retries (1), close (1: each call
closes its connection). Prints a line of JSON for each call: since when, how long it took, how long until its first try
failed, if it did."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.httpsession import URLLib3Session

settings = dict(word.split("=", 1) for word in sys.argv[1:])
AT_ONCE = int(settings.get("at_once", 1))
this_call = threading.local()


class Watched(URLLib3Session):
    """The SDK's own connections; notes when a try fails."""

    def send(self, request):
        try:
            return super().send(request)
        except Exception as error:
            this_call.failed = (time.perf_counter(), type(error).__name__)
            raise


def client():
    config = Config(
        read_timeout=float(settings.get("read_timeout", 60)),
        retries={"total_max_attempts": 1 + int(settings.get("retries", 0))},
        max_pool_connections=AT_ONCE,
    )
    made = boto3.session.Session().client(
        "dynamodb",
        endpoint_url=settings["endpoint"],
        verify=settings["ca"],
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=config,
    )
    made._endpoint.http_session.__class__ = Watched
    if settings.get("close") == "1":
        made.meta.events.register("before-send.dynamodb", close_after)
    return made


def close_after(request, **_rest):
    request.headers["Connection"] = "close"


def call(made, barrier):
    barrier.wait()
    this_call.failed = None
    began = time.perf_counter()
    made.get_item(TableName="shop", Key={"id": {"S": "one"}})
    ended = time.perf_counter()
    failed = this_call.failed
    return {
        "at_ms": began * 1e3,
        "took_ms": (ended - began) * 1e3,
        "failed_ms": failed and (failed[0] - began) * 1e3,
        "error": failed and failed[1],
    }


def main():
    made = client()
    gaps = [float(gap) for gap in settings.get("gaps", "").split(",") if gap]
    barrier = threading.Barrier(AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for gap in [0.0, *gaps]:
            time.sleep(gap)
            for line in threads.map(lambda _index: call(made, barrier), range(AT_ONCE)):
                print(json.dumps(line), flush=True)
    made.close()


main()
