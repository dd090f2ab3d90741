"""Instructions of a claim, counted by callgrind in a single-user server: the same on every machine, counters or not."""
import re
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

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
