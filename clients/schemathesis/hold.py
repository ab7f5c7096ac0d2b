"""Schemathesis, as it is published, holds the service against its OpenAPI document: every check, and
every phase: the document's examples, what lies on its bounds, random data and sequences of calls."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from service import Service

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "openapi/openapi.json"
# How many cases lie on bounds, and how many more there are for each random one of every call.
ON_BOUNDS, FOR_EACH = 1200, 24


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=2000, help="at least so many cases")
    options.add_argument("--seed", type=int, default=1, help="the same seed makes the same cases")
    options = options.parse_args()
    examples = max(1, (options.cases - ON_BOUNDS) // FOR_EACH)
    service = Service()
    try:
        report = run(service, examples, options.seed)
    finally:
        service.remove()
    cases = report["test_cases"]["generated"]
    print(f"{cases} cases in {report['running_time']:.0f} s, seed {options.seed}")
    if report["exit_code"] != 0:
        return 1
    if cases < options.cases:
        print(f"fewer than {options.cases} cases were made", file=sys.stderr)
        return 1
    return 0


def run(service: Service, examples: int, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/report.json"
        program = Path(sys.executable).parent / "schemathesis"
        command = [program, "--config-file", HERE / "schemathesis.toml", "run", DOCUMENT]
        command += ["--url", service.url, "--checks", "all", "--seed", str(seed)]
        command += ["--max-examples", str(examples), "--no-color"]
        command += ["--report", "json", "--report-json-path", path]
        environment = os.environ | {"PYTHONPATH": f"{HERE}:{os.environ['PYTHONPATH']}"}
        # What it keeps beside its reports goes with them.
        subprocess.run(command, env=environment, cwd=directory, check=False)
        with open(path) as report:
            return json.load(report)


if __name__ == "__main__":
    sys.exit(main())
