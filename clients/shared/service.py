"""The service under test: a process of its own, which can be stopped and started again on the same
port and storage, and its REST API."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

BINARY = os.environ.get("DELOS_BIN") or str(
    Path(__file__).resolve().parents[2] / "target/debug/delos-deploy"
)
# Longest wait for anything that a test expects to happen.
WAIT_SECONDS = 20
READY_WAIT_SECONDS = 60


def until(what: str, holds: Callable[[], bool], wait: float = WAIT_SECONDS) -> None:
    """Asks again until it holds."""
    end = time.monotonic() + wait
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {wait} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    """A free port below those that systems give to outgoing connections: none of these may take it
    while the service is stopped, not even the one of a client that tries to connect to it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Service:
    """The service with an empty storage, ready."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = tempfile.TemporaryDirectory(prefix="delos-deploy-")
        self.log = tempfile.TemporaryFile()
        self.start()

    def start(self) -> None:
        """Starts it, the first time or again, and waits until it is ready."""
        env = {
            "PATH": os.environ["PATH"],
            "DELOS_GRPC_PORT": str(self.port),
            "DELOS_STORAGE_BACKEND": "sqlite",
            "DELOS_SQLITE_PATH": f"{self.directory.name}/delos-deploy.db",
            "DELOS_DRAIN_SECONDS": "0",
            "DELOS_TRACING_ENABLED": "false",
        }
        self.process = subprocess.Popen([BINARY], env=env, stdout=self.log, stderr=self.log)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            until("the service is ready", self.is_ready, READY_WAIT_SECONDS)
        except BaseException:
            self.remove()
            raise

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            self.log.seek(0)
            raise RuntimeError(f"the service ended before it was ready: {self.log.read().decode()}")
        try:
            self.connection.request("GET", "/readyz")
            response = self.connection.getresponse()
            response.read()
            return response.status == 200
        except OSError:
            self.connection.close()
            return False

    def stop(self, how: signal.Signals) -> None:
        """Stops it; its storage stays."""
        self.connection.close()
        self.process.send_signal(how)
        ended = self.process.wait(timeout=30)
        assert ended == (0 if how == signal.SIGTERM else -how), ended

    def remove(self) -> None:
        """Ends it, and removes its storage."""
        self.connection.close()
        self.process.kill()
        self.process.wait(timeout=30)
        self.log.close()
        self.directory.cleanup()

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        headers = {"content-type": "application/json"} if body else {}
        self.connection.request(method, path, json.dumps(body) if body else None, headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {text!r}")
        return json.loads(text)

    def deploy(self, prompt: str, version: int, strategy: dict) -> dict:
        """Creates a deployment that begins at once."""
        body = {
            "prompt_id": prompt,
            "environment": "production",
            "to_version": version,
            "strategy": strategy,
            "skip_approval": True,
        }
        return self.call("POST", "/v1/deployments", body)["deployment"]

    def serve(self, prompt: str, version: int) -> None:
        """Serves a version of a prompt to everybody."""
        self.deploy(prompt, version, {"type": "DEPLOYMENT_TYPE_IMMEDIATE"})

    def roll_out(self, prompt: str, version: int) -> dict:
        """Begins to roll out a version: 30 % of the keys, one percent more each second."""
        strategy = {
            "type": "DEPLOYMENT_TYPE_GRADUAL",
            "initial_percentage": 30,
            "increment": 1,
            "interval_seconds": 1,
        }
        return self.deploy(prompt, version, strategy)

    def roll_back(self, deployment: dict) -> None:
        self.call("POST", f"/v1/deployments/{deployment['id']}/rollback")

    def version(self, prompt: str, key: str) -> dict:
        """The service's own answer: what ResolveVersion says."""
        path = f"/v1/environments/production/prompts/{prompt}/version"
        return self.call("GET", f"{path}?targeting_key={quote(key)}")
