"""The provider as published, in both of its modes: its hash is of the service's generation, so that
every key gets what ResolveVersion answers, wherever it is decided."""

import time
import unittest
from collections.abc import Callable

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode

from service import Service

KEYS = [f"user-{number}" for number in range(1000)]
# Slow enough that the rollout is underway for as long as it is looked at.
GRADUAL = {
    "type": "DEPLOYMENT_TYPE_GRADUAL",
    "initial_percentage": 30,
    "increment": 1,
    "interval_seconds": 1,
}


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("what is waited for does not come")


class Flagd(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()

    @classmethod
    def tearDownClass(cls) -> None:
        api.shutdown()
        cls.service.stop()

    def agrees(self, mode: ResolverType, reason: str) -> None:
        """Rolls out version 2 of a prompt of the test's own, compares, and takes it back."""
        prompt = f"greeting-{mode.value}"
        service = self.service
        service.deploy(prompt, 1, {"type": "DEPLOYMENT_TYPE_IMMEDIATE"})
        provider = FlagdProvider(
            host="127.0.0.1", port=service.port, resolver_type=mode, deadline_ms=10_000, tls=False
        )
        api.set_provider_and_wait(provider, mode.value)
        client = api.get_client(mode.value)
        changes: list[str] = []
        client.add_handler(
            ProviderEvent.PROVIDER_CONFIGURATION_CHANGED,
            lambda details: changes.extend(details.flags_changed or []),
        )
        deployment = service.deploy(prompt, 2, GRADUAL)

        def version(key: str | None):
            details = client.get_integer_details(prompt, 0, EvaluationContext(targeting_key=key))
            self.assertIsNone(details.error_code, details.error_message)
            return details

        def compared(key: str):
            """Both answers, of one moment: between the two the rollout may have made a step."""
            while True:
                before, theirs = service.resolve(prompt, key), version(key)
                ours = service.resolve(prompt, key)
                # In the mode rpc the provider of Python drops the metadata.
                decided_by = theirs.flag_metadata.get("revision", int(ours["revision"]))
                if int(before["revision"]) == int(ours["revision"]) == decided_by:
                    return theirs, ours

        until(lambda: prompt in changes)
        served: dict[int, list[str]] = {1: [], 2: []}
        for key in KEYS:
            theirs, ours = compared(key)
            self.assertEqual(theirs.value, ours["version"], key)
            self.assertEqual(theirs.reason, reason)
            served[theirs.value].append(key)
        self.assertGreater(len(served[1]), 200)
        self.assertGreater(len(served[2]), 200)
        self.assertEqual(version(None).value, 1, "no key, no risk")
        wrong = client.get_boolean_details(prompt, True)
        self.assertEqual((wrong.value, wrong.error_code), (True, ErrorCode.TYPE_MISMATCH))
        unknown = client.get_integer_details("unknown", 7)
        self.assertEqual((unknown.value, unknown.error_code), (7, ErrorCode.FLAG_NOT_FOUND))

        heard = len(changes)
        service.roll_back(deployment)
        until(lambda: prompt in changes[heard:] and version(served[2][0]).value == 1)
        self.assertEqual(version(served[2][0]).variant, "v1")

    def test_rpc(self) -> None:
        self.agrees(ResolverType.RPC, "SPLIT")

    def test_in_process(self) -> None:
        self.agrees(ResolverType.IN_PROCESS, "TARGETING_MATCH")


if __name__ == "__main__":
    unittest.main(verbosity=2)
