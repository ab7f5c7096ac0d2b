"""The service under test, as a process of its own, and its REST API."""

import http.client
import json
import os
import subprocess
import threading
from pathlib import Path
from urllib.parse import quote

BINARY = os.environ.get("DELOS_BIN") or str(
    Path(__file__).resolve().parents[3] / "target/debug/delos-deploy"
)


class Service:
    """The service on a free port with storage in memory."""

    def __init__(self) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "DELOS_GRPC_PORT": "0",
            "DELOS_TRACING_ENABLED": "false",
            "DELOS_DRAIN_SECONDS": "0",
        }
        self.process = subprocess.Popen([BINARY], env=env, stdout=subprocess.PIPE, text=True)
        self.port = 0
        for line in self.process.stdout:
            said = json.loads(line)
            if said.get("message") == "serving":
                self.port = int(said["address"].rsplit(":", 1)[1])
                break
        else:
            raise RuntimeError(f"the service ended with {self.process.wait()}")
        # What else it says is of no interest, but must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

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

    def roll_back(self, deployment: dict) -> None:
        self.call("POST", f"/v1/deployments/{deployment['id']}/rollback")

    def resolve(self, prompt: str, key: str) -> dict:
        """What ResolveVersion answers."""
        path = f"/v1/environments/production/prompts/{prompt}/version"
        return self.call("GET", f"{path}?targeting_key={quote(key)}")

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait(timeout=30)
