"""The peers that come with a client of their own, from npm."""
import json
import os
import platform
import subprocess
from pathlib import Path

from .base import Dry, Peer

FOLDER = Path(__file__).parent / "node"
NODE = FOLDER / "node_modules" / f"node-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}" / "bin" / "node"


class NodePeer(Peer):
    script = package = None

    def node(self, *arguments):
        return subprocess.Popen([NODE, FOLDER / self.script, *map(str, arguments)], text=True,
                                env=os.environ | {"PGDATABASE": self.database, "NODE_ENV": "production"},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, process):
        out, err = process.communicate()
        if process.returncode:
            raise (Dry if process.returncode == 3 else RuntimeError)(f"{self.script}: {err}")
        return json.loads(out) if out.strip() else None

    def install(self):
        self.finish(self.node("migrate"))

    def version(self):
        return json.loads((FOLDER / "node_modules" / self.package / "package.json").read_text())["version"]

    def load(self, op, clients, seconds, batch=1):
        """A process per core at most, since JavaScript runs on one, and its share of the clients in each."""
        count = min(clients, os.cpu_count())
        done = [self.finish(process) for process in
                [self.node("work", (clients + n) // count, batch, seconds) for n in range(count)]]
        return {"jobs": sum(d["jobs"] for d in done), "rate": sum(d["rate"] for d in done)}


class Graphile(NodePeer):
    name, title, script, package = "graphile", "graphile-worker", "graphile.mjs", "graphile-worker"
    live = "SELECT count(*) FROM graphile_worker._private_jobs"
    vacuum = "graphile_worker._private_jobs"
    ADD = """SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(SELECT row('send_email', payload(n)::json, NULL, NULL, NULL,
             NULL, NULL, NULL)::graphile_worker.job_spec FROM generate_series(%s::bigint, %s) n))"""

    def fill(self, jobs):
        self.fill_in_steps(jobs, self.ADD)


class PgBoss(NodePeer):
    name, title, script, package = "pgboss", "pg-boss", "pgboss.mjs", "pg-boss"
    live = "SELECT count(*) FROM pgboss.job WHERE state < 'completed'"
    vacuum = "pgboss.job"

    def fill(self, jobs):
        self.finish(self.node("fill", jobs, self.filled + 1))
        self.filled += jobs
