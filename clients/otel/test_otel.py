"""OpenTelemetry's SDK for Python with its exporters, as they are published: an application that asks
which version to serve, puts what it is told on its spans, and exports them. What the service makes
of it is read off the rollout's status."""

import unittest
from collections import Counter

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service import Service

USERS = [f"user-{number}" for number in range(100)]


class Application:
    """An application that is instrumented, and sends by some exporters."""

    def __init__(self, spans, logs) -> None:
        resource = Resource.create({"service.name": "chat", "deployment.environment.name": "production"})
        self.tracers = TracerProvider(resource=resource)
        self.tracers.add_span_processor(BatchSpanProcessor(spans))
        self.loggers = LoggerProvider(resource=resource)
        self.loggers.add_log_record_processor(BatchLogRecordProcessor(logs))
        self.tracer = self.tracers.get_tracer("chat")
        self.logger = self.loggers.get_logger("judge")

    def answer(self, split: dict, user: str):
        """One request: a span of the server's, and the model's call in it. Returns the call."""
        with self.tracer.start_as_current_span("POST /chat", attributes={"http.route": "/chat"}):
            with self.tracer.start_as_current_span("chat gpt", kind=trace.SpanKind.CLIENT) as call:
                call.set_attributes(split["attributes"])
                call.set_attribute("delos.unit", user)
                call.set_attribute("gen_ai.operation.name", "chat")
                call.set_attribute("gen_ai.input.messages", "[" + "what nobody else is to read " * 20 + "]")
                return call

    def judge(self, call, score: float) -> None:
        """An evaluation, parented to the call that it is of."""
        self.logger.emit(
            context=trace.set_span_in_context(call),
            event_name="gen_ai.evaluation.result",
            attributes={
                "gen_ai.evaluation.name": "relevance",
                "gen_ai.evaluation.score.value": score,
                "gen_ai.evaluation.score.label": "relevant",
            },
        )

    def send(self) -> None:
        assert self.tracers.force_flush() and self.loggers.force_flush()

    def stop(self) -> None:
        self.tracers.shutdown()
        self.loggers.shutdown()


class Otel(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()
        cls.addClassCleanup(cls.service.remove)

    def roll_out(self, prompt: str) -> dict:
        """Version 1 for half of the users, version 2 for the others."""
        self.service.serve(prompt, 1)
        strategy = {"type": "DEPLOYMENT_TYPE_CANARY", "initial_percentage": 50, "interval_seconds": 3600}
        return self.service.deploy(prompt, 2, strategy)

    def metrics(self, deployment: dict) -> tuple[dict, dict]:
        status = self.service.call("GET", f"/v1/deployments/{deployment['id']}/status")
        return status["current_metrics"], status["baseline_metrics"]

    def application(self, spans, logs) -> Application:
        application = Application(spans, logs)
        self.addCleanup(application.stop)
        return application

    def check(self, prompt: str, application: Application) -> None:
        """Serves users, and reads off the status what became of their requests."""
        deployment = self.roll_out(prompt)
        served = Counter()
        for user in USERS:
            split = self.service.version(prompt, user)
            served[split["version"]] += 1
            call = application.answer(split, user)
            application.judge(call, 0.5 if split["version"] == 2 else 1.0)
        application.send()
        current, baseline = self.metrics(deployment)
        for metrics, version in [(current, 2), (baseline, 1)]:
            self.assertEqual(metrics["request_count"], served[version])
            self.assertEqual(int(metrics["unit_count"]), served[version])
            self.assertEqual(int(metrics["score_count"]), served[version])
            self.assertEqual(metrics["error_rate"], 0)
            self.assertGreater(metrics["avg_latency_ms"], 0)
        self.assertAlmostEqual(current["quality_score"], 0.5)
        self.assertAlmostEqual(baseline["quality_score"], 1.0)
        self.assertGreater(min(served.values()), 20, served)

    def test_over_grpc(self) -> None:
        target = {"endpoint": self.service.url, "insecure": True}
        spans, logs = grpc_traces.OTLPSpanExporter(**target), grpc_logs.OTLPLogExporter(**target)
        self.check("over-grpc", self.application(spans, logs))

    def test_over_http(self) -> None:
        spans, logs = self.over_http(Compression.NoCompression)
        self.check("over-http", self.application(spans, logs))

    def test_over_http_compressed(self) -> None:
        spans, logs = self.over_http(Compression.Gzip)
        self.check("over-http-compressed", self.application(spans, logs))

    def test_a_call_that_fails_counts_as_such_and_a_preview_does_not_count(self) -> None:
        deployment = self.roll_out("failing")
        application = self.application(*self.over_http(Compression.NoCompression))
        for user in USERS:
            split = self.service.version("failing", user)
            try:
                with application.tracer.start_as_current_span("chat gpt", attributes=split["attributes"]) as call:
                    call.set_attribute("delos.unit", user)
                    call.add_event(
                        "gen_ai.evaluation.result",
                        {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.75},
                    )
                    if split["version"] == 2:
                        raise TimeoutError("the model does not answer")
            except TimeoutError:
                pass
        path = "/v1/environments/production/prompts/failing/version?targeting_key=tester&preview=true"
        preview = self.service.call("GET", path)
        self.assertEqual((preview["version"], preview["attributes"]["delos.deployment.arm"]), (2, "preview"))
        application.judge(application.answer(preview, "tester"), 0.0)
        application.send()
        current, baseline = self.metrics(deployment)
        self.assertEqual(current["request_count"] + baseline["request_count"], len(USERS))
        self.assertEqual((current["error_rate"], baseline["error_rate"]), (1, 0))
        self.assertEqual((current["quality_score"], baseline["quality_score"]), (0.75, 0.75))

    def over_http(self, compression: Compression):
        url = self.service.url
        return (
            http_traces.OTLPSpanExporter(endpoint=f"{url}/v1/traces", compression=compression),
            http_logs.OTLPLogExporter(endpoint=f"{url}/v1/logs", compression=compression),
        )


if __name__ == "__main__":
    unittest.main()
