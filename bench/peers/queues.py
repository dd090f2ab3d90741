"""The peers that speak SQL: holdfast, the hand-written queue, PgQ, INSERT ... SELECT, and the limit."""
from .base import Peer

# The number of a batch to be staged.  A slice that ran dry has drawn numbers beyond the last one that was there.
NEXT_BATCH = "(SELECT greatest((SELECT max(batch) FROM staged), CASE WHEN is_called THEN last_value END, 0) + 1 FROM next_batch)"


class Holdfast(Peer):
    name = title = "holdfast"
    live = "SELECT count(*) FROM holdfast.job"
    vacuum = "holdfast.job, holdfast.ledger, holdfast.event"
    settle = "SELECT holdfast.complete(job_id, lease_id) FROM holdfast.job WHERE status = 'running'"
    JOBS = """SELECT jsonb_agg(jsonb_build_object('action_key', 'send_email', 'subject', 'prospect-' || n,
              'payload', payload(n)::jsonb {more})) FROM generate_series(%s::bigint, %s) n"""
    ADD = "SELECT count(*) FROM holdfast.enqueue_batch('bench', ({jobs})) WHERE outcome = 'created'"
    STAGE = f"INSERT INTO staged SELECT {NEXT_BATCH}, ({{jobs}})"

    def fill(self, jobs, more=""):
        """more: further parameters of enqueue, ", 'priority', 10" for example."""
        self.fill_in_steps(jobs, self.ADD.format(jobs=self.JOBS.format(more=more)))

    def fill_at_once(self, jobs):
        """All of them due at the same microsecond: by the frozen clock, which is the superuser's."""
        self.db.execute("LOAD 'holdfast'")
        self.db.execute("SELECT set_config('holdfast.clock', clock_timestamp()::text, false)")
        self.fill(jobs)
        self.db.execute("RESET holdfast.clock")

    def stage(self, jobs, step):
        self.fill_in_steps(jobs, self.STAGE.format(jobs=self.JOBS.format(more="")), step)

    def staged(self):
        return self.value("SELECT count(*) FROM staged, next_batch WHERE batch > last_value")

    def version(self):
        return self.value("SELECT extversion FROM pg_extension WHERE extname = 'holdfast'")


class Handwritten(Peer):
    name, title = "handwritten", "hand-written"
    live = "SELECT count(*) FROM job"
    vacuum = "job"
    settle = "DELETE FROM job WHERE status = 'running'"
    ADD = "INSERT INTO job (payload, priority, run_at) SELECT payload(n)::jsonb, {priority}, {run_at} FROM generate_series(%s::bigint, %s) n"

    def fill(self, jobs, priority=0, run_at="now()"):
        self.fill_in_steps(jobs, self.ADD.format(priority=priority, run_at=run_at))

    def fill_at_once(self, jobs):
        self.fill(jobs, run_at=self.value("SELECT quote_literal(now())"))


class HandwrittenPartial(Handwritten):
    """With the dispatch index that most such queues have, on pending rows only: each claim must leave it."""
    name = "handwritten"

    def install(self):
        super().install()
        self.db.execute("DROP INDEX job_queue_priority_run_at_id_idx")
        self.db.execute("CREATE INDEX ON job (queue, priority, run_at, id) WHERE status = 'pending'")


class PgQ(Peer):
    name, title = "pgq", "PgQ"
    live = "SELECT count(*) FROM pgq.event_1"
    vacuum = "pgq.event_1"

    def tidy(self):
        """And a tick, which its daemon would do every second or so."""
        super().tidy()
        self.db.execute("SELECT pgq.ticker()")

    def version(self):
        return self.value("SELECT extversion FROM pg_extension WHERE extname = 'pgq'")


class Insert(Peer):
    """INSERT ... SELECT of rows staged in a table, with a unique key (op keyed) and without (op plain)."""
    name, title = "insert", "INSERT"
    STAGE = f"""INSERT INTO staged SELECT b.next, gen_random_uuid(), payload(n)::jsonb FROM generate_series(%s::bigint, %s) n,
                (SELECT {NEXT_BATCH} AS next) b"""
    live = "SELECT (SELECT count(*) FROM keyed) + (SELECT count(*) FROM plain)"
    vacuum = "keyed, plain, staged"

    def stage(self, jobs, step):
        self.fill_in_steps(jobs, self.STAGE, step)

    def staged(self):
        return self.value("SELECT count(DISTINCT batch) FROM staged, next_batch WHERE batch > last_value")


class Limit(Peer):
    """Committed single-row INSERTs: what the machine's commits allow."""
    name, title = "limit", "the limit"
    live = "SELECT count(*) FROM row"
    vacuum = "row"
