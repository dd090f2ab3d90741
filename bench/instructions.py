"""Instructions, counted by callgrind: the same on every machine, counters or not, and whatever else it does."""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

WARM_UP, CLAIMS = 5, 25

# A lease is completed by another transaction than the claim's, so it goes through a temporary table.
CYCLE = """INSERT INTO taken SELECT job_id, lease_id FROM holdfast.claim('{queue}', 'worker')
SELECT holdfast.complete(job_id, lease_id) FROM taken
DELETE FROM taken
"""


def control(data, *arguments):
    """pg_ctl, where scripts/server calls it: restart repeats the last start's options, in which the folder is relative."""
    done = subprocess.run(["pg_ctl", *arguments, "--silent", "--wait", "--timeout=600", "--pgdata=data"], cwd=Path(data).parent,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"pg_ctl {arguments[0]}: {done.stderr}")


@contextmanager
def server_stopped(bench, peers):
    """A single-user server wants the data directory to itself."""
    bench.admin.close()
    for peer in peers:
        peer.db.close()
    control(bench.data, "stop", "--mode=fast")
    try:
        yield
    finally:
        control(bench.data, "restart", "--log=log")
        bench.connect()
        for peer in peers:
            peer.connect()


@contextmanager
def counting_server(data):
    """The stopped server, started under callgrind.  Yields the folder where each process leaves its counts when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--trace-children=yes", "--quiet", f"--callgrind-out-file={folder}/out.%p", shutil.which("postgres"),
             "-D", data, "-c", "listen_addresses=", "-c", f"unix_socket_directories={os.environ['PGHOST']}", "-c", "shared_buffers=256MB",
             "-c", "autovacuum=off", "-c", "jit=off", "-c", "max_wal_size=4GB"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: accepts(server))
            yield Path(folder)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=300)


def accepts(server):
    if server.poll() is not None:
        raise RuntimeError("the server did not start under valgrind")
    try:
        psycopg.connect(dbname="postgres").close()
        return True
    except psycopg.OperationalError:
        return False


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError("valgrind left no counts")
        time.sleep(0.2)
    return found


def of_session(folder, load):
    """By function, with what it calls, the instructions of the one session that load() makes."""
    before = set(folder.iterdir())
    load()

    def ended():
        for path in set(folder.iterdir()) - before:
            text = path.read_text(errors="replace")
            if "PortalRun" in text and re.search(r"^totals: ", text, re.M):
                return path

    found = {}
    listing = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", wait_for(ended)], capture_output=True, text=True,
                             errors="replace", check=True).stdout
    for count, name in re.findall(r"^ *([\d,]+) \([^)]*\)  \S*:(\w+)(?:'\d+)? \[", listing, re.M):
        found[name] = max(found.get(name, 0), int(count.replace(",", "")))
    return found


def per_claim(data, database, queue):
    """Instructions of each of some claims, once the backend's caches are warm.  The server must be stopped."""
    cycles = WARM_UP + CLAIMS
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--collect-atstart=no",
             "--toggle-collect=holdfast_claim", "--dump-after=holdfast_claim",
             "postgres", "--single", "-D", data, "-c", "shared_buffers=128MB", "-c", "log_min_messages=fatal", database],
            input="CREATE TEMPORARY TABLE taken (job_id bigint, lease_id uuid)\n" + CYCLE.format(queue=queue) * cycles,
            capture_output=True, text=True, timeout=1200)
        dumps = [Path(folder, f"out.{n}").read_text() for n in range(1, cycles + 1) if Path(folder, f"out.{n}").exists()]
    completed = done.stdout.count('complete = "completed"')
    if done.returncode != 0 or completed != cycles or len(dumps) != cycles:
        raise RuntimeError(f"{completed} of {cycles} claims under valgrind:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return [int(re.search(r"^(?:totals|summary): (\d+)", dump, re.M)[1]) for dump in dumps[WARM_UP:]]
