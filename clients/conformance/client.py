"""The clients of Python, as published: flagd's provider in OpenFeature's SDK, and the evaluator alone.

Each line of its input is a JSON array of what to do and with what, and is answered with a line. What
its listeners hear comes in between."""

import json
import sys
import threading

import grpc
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import CacheType, ResolverType
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import OpenFeatureError
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2 import FetchAllFlagsRequest
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2_grpc import FlagSyncServiceStub

EVENTS = {
    "ready": ProviderEvent.PROVIDER_READY,
    "stale": ProviderEvent.PROVIDER_STALE,
    "error": ProviderEvent.PROVIDER_ERROR,
    "change": ProviderEvent.PROVIDER_CONFIGURATION_CHANGED,
}
OPTIONS = {
    "cache": ("cache", CacheType),
    "deadlineMs": ("deadline_ms", int),
    "retryBackoffMs": ("retry_backoff_ms", int),
    "retryBackoffMaxMs": ("retry_backoff_max_ms", int),
    "retryGracePeriod": ("retry_grace_period", int),
    "selector": ("selector", str),
}

saying = threading.Lock()


def say(message: dict) -> None:
    with saying:
        print(json.dumps(message), flush=True)


def evaluation_context(context: dict) -> EvaluationContext:
    attributes = dict(context)
    return EvaluationContext(attributes.pop("targetingKey", None), attributes)


def told(details) -> dict:
    return {
        "value": details.value,
        "variant": details.variant,
        "reason": details.reason,
        "errorCode": details.error_code,
    }


class Provider:
    def __init__(self, mode: str) -> None:
        self.mode = ResolverType(mode)
        self.client = api.get_client()

    def open(self, port: int, options: dict, available: bool) -> None:
        """Connects; waits until it is ready where it is available."""
        named = {OPTIONS[name][0]: OPTIONS[name][1](value) for name, value in options.items()}
        provider = FlagdProvider(
            host="127.0.0.1", port=port, tls=False, resolver_type=self.mode, **named
        )
        if not available:
            api.set_provider(provider)
            return
        # A stream of events begins with all flags, as if each had changed; that is none of a
        # scenario's changes.
        told = threading.Event()

        def heard(details) -> None:
            told.set()

        self.client.add_handler(EVENTS["change"], heard)
        api.set_provider_and_wait(provider)
        if self.mode == ResolverType.RPC:
            told.wait(10)
        self.client.remove_handler(EVENTS["change"], heard)

    def listen(self, listener: int, event: str) -> None:
        def heard(details) -> None:
            say({"listener": listener, "flags": details.flags_changed or []})

        self.client.add_handler(EVENTS[event], heard)

    def evaluate(self, type: str, key: str, fallback, context: dict) -> dict:
        details = getattr(self.client, f"get_{type.lower()}_details")
        return told(details(key, fallback, evaluation_context(context)))

    def close(self) -> None:
        api.clear_providers()


class Evaluator:
    def open(self, port: int, options: dict, available: bool) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = FlagSyncServiceStub(channel).FetchAllFlags(FetchAllFlagsRequest(), timeout=10)
        self.core = FlagdCore()
        self.core.set_flags(answer.flag_configuration)

    def evaluate(self, type: str, key: str, fallback, context: dict) -> dict:
        resolve = getattr(self.core, f"resolve_{type.lower()}_value")
        try:
            return told(resolve(key, fallback, evaluation_context(context)))
        except OpenFeatureError as error:
            return {"value": fallback, "reason": "ERROR", "errorCode": error.error_code}

    def close(self) -> None:
        pass


def main(mode: str) -> None:
    client = Evaluator() if mode == "evaluator" else Provider(mode)
    for line in sys.stdin:
        do, arguments = json.loads(line)
        try:
            say({"answer": getattr(client, do)(*arguments)})
        except Exception as error:
            say({"failure": f"{type(error).__name__}: {error}"})
    api.shutdown()


main(sys.argv[1])
