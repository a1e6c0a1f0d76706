"""Run mcpd on an `mcpServers` JSON file at a given port: what benchmark harnesses expect of a gateway.

    python benchmarks/serve_config.py --port PORT --config FILE

Everything that mcpd writes goes into a temporary directory, which is removed at the end. Access is open ("none"), as
it is with the peers.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from mcpd import logs
from mcpd.boot import run
from mcpd.config.load import load


def registry_of(servers: dict[str, dict[str, object]], port: int) -> str:
    """The TOML registry that runs these servers."""
    lines = [
        '[daemon]\nstate_dir = "state"\nruntime_dir = "run"\nlog_level = "warning"\n',
        f'[frontdoor]\nport = {port}\nauth = "none"\n',
    ]
    for name, server in servers.items():
        argv = json.dumps([server["command"], *server.get("args", [])])  # type: ignore[misc]
        env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in server.get("env", {}).items())  # type: ignore[attr-defined]
        lines.append(f"[servers.{name}]\ncommand = {argv}\nenv = {{ {env} }}\n")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mcpd-bench-") as home:
        path = Path(home) / "mcpd.toml"
        servers = json.loads(options.config.read_text())["mcpServers"]
        path.write_text(registry_of(servers, options.port))
        registry = load(path, os.environ)
        logs.configure(registry.daemon.log_level, "json")
        return run(registry)


if __name__ == "__main__":
    sys.exit(main())
