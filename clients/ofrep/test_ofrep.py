"""OpenFeature's Python SDK with its OFREP provider, as they are published, against the service. The
provider asks anew with each evaluation and has no change events: what it answers is how a change
shows."""

import signal
import unittest

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from service import Service

PROMPT = "greeting"


class Ofrep(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()
        cls.addClassCleanup(cls.service.remove)
        api.set_provider_and_wait(OFREPProvider(cls.service.url))
        cls.client = api.get_client()

    def both(self, key: str):
        """What the SDK and the service say of a key, of one and the same split."""
        for _ in range(10):
            ours = self.client.get_integer_details(PROMPT, 0, EvaluationContext(key, {"plan": "pro"}))
            theirs = self.service.version(PROMPT, key)
            # A step of the rollout may have come between.
            if ours.flag_metadata.get("revision") == int(theirs["revision"]):
                return ours, theirs
        self.fail(f"{key}: the split changes too fast")

    def value(self, prompt: str, key: str | None = None) -> int:
        return self.client.get_integer_value(prompt, 0, EvaluationContext(key))

    def test_a_version_is_a_number_that_the_sdk_agrees_on_with_the_service(self) -> None:
        self.service.serve(PROMPT, 1)
        alone = self.client.get_integer_details(PROMPT, 0, EvaluationContext("user-1"))
        self.assertEqual((alone.value, alone.variant, alone.reason), (1, "v1", Reason.STATIC))
        rollout = self.service.roll_out(PROMPT, 2)
        early = []
        for number in range(1000):
            key = f"user-{number}"
            ours, theirs = self.both(key)
            self.assertEqual((ours.value, ours.reason), (theirs["version"], Reason.SPLIT), key)
            self.assertEqual(ours.flag_metadata["deploymentId"], theirs["deployment_id"], key)
            if ours.value == 2:
                early.append(key)
        # 30 % or more, less four standard deviations.
        self.assertGreater(len(early), 240)
        self.assertLess(len(early), 1000)
        self.assertEqual(self.value(PROMPT), 1, "without a key, the stable version")
        preview = self.client.get_integer_details(PROMPT, 0, EvaluationContext(attributes={"preview": True}))
        self.assertEqual((preview.value, preview.flag_metadata["arm"]), (2, "preview"))

        self.service.roll_back(rollout)
        for key in early:
            self.assertEqual(self.value(PROMPT, key), 1, key)

    def test_what_cant_be_evaluated_is_the_default_with_the_reason_why(self) -> None:
        self.service.serve("welcome", 1)
        cases = [
            ("farewell", EvaluationContext("user-1"), ErrorCode.FLAG_NOT_FOUND),
            ("welcome", EvaluationContext(attributes={"environment": "no name"}), ErrorCode.INVALID_CONTEXT),
            ("welcome", EvaluationContext(attributes={"environment": "staging"}), ErrorCode.FLAG_NOT_FOUND),
        ]
        for flag, context, code in cases:
            details = self.client.get_integer_details(flag, 7, context)
            self.assertEqual((details.value, details.error_code), (7, code), details)
        details = self.client.get_string_details("welcome", "none", EvaluationContext("user-1"))
        self.assertEqual((details.value, details.error_code), ("none", ErrorCode.TYPE_MISMATCH), details)

    def test_the_service_is_stopped_started_again_and_changes(self) -> None:
        prompt = "restarted"
        self.service.serve(prompt, 1)
        rollout = self.service.roll_out(prompt, 2)
        early = [key for key in (f"user-{number}" for number in range(100)) if self.value(prompt, key) == 2]
        self.assertTrue(early)

        self.service.stop(signal.SIGTERM)
        self.assertEqual(self.value(prompt, early[0]), 0, "nobody answers: the default")
        self.service.start()
        for key in early:
            self.assertEqual(self.value(prompt, key), 2, key)
        self.service.roll_back(rollout)
        for key in early:
            self.assertEqual(self.value(prompt, key), 1, key)

        self.service.stop(signal.SIGKILL)
        self.service.start()
        self.assertEqual(self.value(prompt, early[0]), 1)
        self.service.serve(prompt, 3)
        self.assertEqual(self.value(prompt, early[0]), 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
