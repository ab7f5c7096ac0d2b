"""OpenFeature's Python SDK with its OFREP provider, as they are published, against the service."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

PROMPT = "greeting"
BINARY = os.environ.get("DELOS_BIN") or pathlib.Path(__file__).parents[2] / "target/debug/delos-deploy"
READY_WAIT_SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Service:
    """The service as a process of its own, with an empty storage."""

    def __enter__(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile()
        environment = {
            "DELOS_GRPC_PORT": str(port),
            "DELOS_STORAGE_BACKEND": "memory",
            "DELOS_TRACING_ENABLED": "false",
        }
        self.process = subprocess.Popen([BINARY], env=environment, stdout=self.log, stderr=self.log)
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait_until_ready(self):
        end = time.monotonic() + READY_WAIT_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
                return
            except OSError:
                self.log.seek(0)
                assert self.process.poll() is None, self.log.read().decode()
                assert time.monotonic() < end, "the service does not become ready"
                time.sleep(0.02)

    def rest(self, path, body=None):
        request = urllib.request.Request(f"{self.url}/v1{path}", headers={"content-type": "application/json"})
        if body is not None:
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def deploy(self, version, **strategy):
        body = {"prompt_id": PROMPT, "environment": "production", "to_version": version, "strategy": strategy}
        return self.rest("/deployments", {**body, "skip_approval": True})["deployment"]

    def version(self, key):
        query = urllib.parse.urlencode({"targeting_key": key})
        return self.rest(f"/environments/production/prompts/{PROMPT}/version?{query}")


def both(client, service, key):
    """What the SDK and the service say of a key, of one and the same split."""
    for _ in range(10):
        ours = client.get_integer_details(PROMPT, 0, EvaluationContext(key, {"plan": "pro"}))
        theirs = service.version(key)
        # A step of the rollout may have come between.
        if ours.flag_metadata.get("revision") == int(theirs["revision"]):
            return ours, theirs
    raise AssertionError(f"{key}: the split changes too fast")


def a_version_is_a_number_that_the_sdk_agrees_on_with_the_service(client, service):
    service.deploy(1, type="DEPLOYMENT_TYPE_IMMEDIATE")
    alone = client.get_integer_details(PROMPT, 0, EvaluationContext("user-1"))
    assert (alone.value, alone.variant, alone.reason) == (1, "v1", Reason.STATIC), alone
    rollout = service.deploy(
        2, type="DEPLOYMENT_TYPE_GRADUAL", initial_percentage=30, increment=1, interval_seconds=1
    )
    early = []
    for number in range(1000):
        key = f"user-{number}"
        ours, theirs = both(client, service, key)
        assert (ours.value, ours.reason) == (theirs["version"], Reason.SPLIT), (key, ours, theirs)
        assert ours.flag_metadata["deploymentId"] == theirs["deployment_id"], (key, ours, theirs)
        if ours.value == 2:
            early.append(key)
    # 30 % or more, less four standard deviations.
    assert 240 < len(early) < 1000, len(early)
    assert client.get_integer_value(PROMPT, 0) == 1, "without a key, the stable version"
    preview = client.get_integer_details(PROMPT, 0, EvaluationContext(attributes={"preview": True}))
    assert (preview.value, preview.flag_metadata["arm"]) == (2, "preview"), preview

    service.rest(f"/deployments/{rollout['id']}/rollback", {})
    for key in early:
        assert client.get_integer_value(PROMPT, 0, EvaluationContext(key)) == 1, key


def what_cant_be_evaluated_is_the_default_with_the_reason_why(client, _service):
    cases = [
        ("farewell", EvaluationContext("user-1"), ErrorCode.FLAG_NOT_FOUND),
        (PROMPT, EvaluationContext(attributes={"environment": "no name"}), ErrorCode.INVALID_CONTEXT),
        (PROMPT, EvaluationContext(attributes={"environment": "staging"}), ErrorCode.FLAG_NOT_FOUND),
    ]
    for flag, context, code in cases:
        details = client.get_integer_details(flag, 7, context)
        assert (details.value, details.error_code) == (7, code), details
    details = client.get_string_details(PROMPT, "none", EvaluationContext("user-1"))
    assert (details.value, details.error_code) == ("none", ErrorCode.TYPE_MISMATCH), details


def main():
    tests = [
        a_version_is_a_number_that_the_sdk_agrees_on_with_the_service,
        what_cant_be_evaluated_is_the_default_with_the_reason_why,
    ]
    with Service() as service:
        api.set_provider_and_wait(OFREPProvider(service.url))
        client = api.get_client()
        for test in tests:
            started = time.monotonic()
            test(client, service)
            print(f"ok: {test.__name__.replace('_', ' ')} ({time.monotonic() - started:.1f} s)")
    print(f"{len(tests)} passed, 0 failed")


main()
