"""The provider as published, in both of its modes: its hash is of the service's generation, so that
every key gets what ResolveVersion answers, wherever it is decided."""

import signal
import unittest

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode

from service import Service, until

KEYS = [f"user-{number}" for number in range(1000)]


class Rollout:
    """The rollout of version 2 of a prompt of the test's own, and a client that is told of changes."""

    def __init__(self, service: Service, mode: ResolverType, prompt: str) -> None:
        self.service = service
        self.prompt = prompt
        self.changes: list[str] = []
        self.connections = 0
        service.serve(prompt, 1)
        provider = FlagdProvider(
            host="127.0.0.1",
            port=service.port,
            resolver_type=mode,
            deadline_ms=10_000,
            retry_backoff_ms=100,
            retry_backoff_max_ms=200,
            tls=False,
        )
        api.set_provider_and_wait(provider, prompt)
        self.client = api.get_client(prompt)
        self.client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, self.changed)
        self.client.add_handler(ProviderEvent.PROVIDER_READY, self.connected)
        self.deployment = service.roll_out(prompt, 2)
        until("the client hears of the rollout", lambda: prompt in self.changes)

    def changed(self, details) -> None:
        self.changes.extend(details.flags_changed or [])

    def connected(self, _details) -> None:
        self.connections += 1

    def value(self, key: str) -> int:
        return self.client.get_integer_value(self.prompt, 0, EvaluationContext(key))

    def details(self, key: str | None):
        details = self.client.get_integer_details(self.prompt, 0, EvaluationContext(key))
        assert details.error_code is None, details
        return details

    def both(self, key: str):
        """What the client and the service say of a key, of one and the same split."""
        while True:
            before, theirs = self.service.version(self.prompt, key), self.details(key)
            ours = self.service.version(self.prompt, key)
            # Between two answers the rollout may have made a step. In the mode rpc the provider of
            # Python drops the metadata.
            decided_by = theirs.flag_metadata.get("revision", int(ours["revision"]))
            if int(before["revision"]) == int(ours["revision"]) == decided_by:
                return theirs, ours

    def roll_back(self, key: str) -> None:
        """Takes the rollout back, which the client is to hear of and to serve."""
        heard = len(self.changes)
        self.service.roll_back(self.deployment)
        until("the client hears of the rollback", lambda: self.prompt in self.changes[heard:])
        until("the client serves version 1", lambda: self.details(key).value == 1)
        assert self.details(key).variant == "v1"


class Flagd(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()
        cls.addClassCleanup(cls.service.remove)
        cls.addClassCleanup(api.shutdown)

    def agrees(self, mode: ResolverType, reason: str) -> None:
        rollout = Rollout(self.service, mode, f"greeting-{mode.value}")
        served: dict[int, list[str]] = {1: [], 2: []}
        for key in KEYS:
            theirs, ours = rollout.both(key)
            self.assertEqual(theirs.value, ours["version"], key)
            self.assertEqual(theirs.reason, reason)
            served[theirs.value].append(key)
        self.assertGreater(len(served[1]), 200)
        self.assertGreater(len(served[2]), 200)
        self.assertEqual(rollout.details(None).value, 1, "no key, no risk")
        wrong = rollout.client.get_boolean_details(rollout.prompt, True)
        self.assertEqual((wrong.value, wrong.error_code), (True, ErrorCode.TYPE_MISMATCH))
        unknown = rollout.client.get_integer_details("unknown", 7)
        self.assertEqual((unknown.value, unknown.error_code), (7, ErrorCode.FLAG_NOT_FOUND))
        rollout.roll_back(served[2][0])

    def test_rpc(self) -> None:
        self.agrees(ResolverType.RPC, "SPLIT")

    def test_in_process(self) -> None:
        self.agrees(ResolverType.IN_PROCESS, "TARGETING_MATCH")

    def restarts(self, mode: ResolverType) -> None:
        """The service is stopped, started again, and changes."""
        rollout = Rollout(self.service, mode, f"restarted-{mode.value}")
        early = [key for key in KEYS[:100] if rollout.value(key) == 2]
        kept = 2 if mode == ResolverType.IN_PROCESS else 0

        before = rollout.connections
        self.service.stop(signal.SIGTERM)
        self.assertEqual(rollout.value(early[0]), kept)
        self.service.start()
        if mode == ResolverType.RPC:
            until("the client has connected again", lambda: rollout.connections > before)
        for key in early:
            theirs, ours = rollout.both(key)
            self.assertEqual(theirs.value, ours["version"], key)
        rollout.roll_back(early[0])

        # In the mode rpc the provider keeps a STATIC value over the interruption, and lets go of it
        # by an event of its stream only.
        rollout.details(early[0])
        reason = rollout.details(early[0]).reason
        self.assertEqual(reason, "CACHED" if mode == ResolverType.RPC else "STATIC")
        self.service.stop(signal.SIGKILL)
        self.service.start()
        # At once: what it has kept must not outlive the time in which it does not listen.
        self.service.serve(rollout.prompt, 3)
        until("the client serves version 3", lambda: rollout.value(early[0]) == 3)

    def test_restart_rpc(self) -> None:
        self.restarts(ResolverType.RPC)

    def test_restart_in_process(self) -> None:
        self.restarts(ResolverType.IN_PROCESS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
